#include <functional>
#include <limits>
#include <map>
#include <set>

#include "server/service_test_fixture.h"

namespace gvsl {
namespace {

class VolumeServiceTest : public ServiceTest {};

TEST_F(VolumeServiceTest, AVolumeComesBackBitIdenticalWithItsRecord) {
  const Cube cube(100, 0.5);  // 2 MB: several full chunks
  v1::Volume made;
  ASSERT_OK(Upload(volumes(), cube.Header(Id()), cube.voxels, &made, kMaxChunkBytes));
  EXPECT_EQ(made.name().rfind("volumes/", 0), 0u);
  EXPECT_EQ(made.voxel_bytes(), 2000000);
  EXPECT_EQ(made.grid().SerializeAsString(), ToProto(cube.grid).SerializeAsString());
  EXPECT_EQ(made.min_value(), 0);
  EXPECT_EQ(made.max_value(), 1999);
  EXPECT_GT(made.create_time().seconds(), 0);

  v1::Volume got, with_voxels;
  ASSERT_OK(Get(made.name(), &got));
  EXPECT_EQ(got.SerializeAsString(), made.SerializeAsString());
  std::string whole, rest;
  ASSERT_OK(Download(made.name(), 0, &whole, &with_voxels));
  EXPECT_EQ(with_voxels.SerializeAsString(), made.SerializeAsString());
  EXPECT_TRUE(whole == cube.voxels);
  ASSERT_OK(Download(made.name(), 1234567, &rest));
  EXPECT_TRUE(rest == cube.voxels.substr(1234567));
  std::string none;
  EXPECT_OK(Download(made.name(), 2000000, &none));
  const grpc::Status beyond = Download(made.name(), 2000001, &none);
  EXPECT_EQ(beyond.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(beyond), "offset");
  EXPECT_EQ(none, "");
}

TEST_F(VolumeServiceTest, OutputOnlyFieldsOfAHeaderAreIgnored) {
  v1::CreateVolumeRequest header = Cube(2).Header(Id());
  header.mutable_header()->mutable_volume()->set_name("volumes/mine");
  header.mutable_header()->mutable_volume()->set_max_value(1e9);
  header.mutable_header()->mutable_volume()->set_content_sha256("mine");
  v1::Volume made;
  ASSERT_OK(Upload(volumes(), header, Cube(2).voxels, &made));
  EXPECT_NE(made.name(), "volumes/mine");
  EXPECT_LT(made.max_value(), 2000);
  EXPECT_EQ(made.content_sha256().size(), 64u);
}

TEST_F(VolumeServiceTest, TheSameRequestTwiceIsOneVolume) {
  const Cube cube;
  const v1::Volume first = Store(cube, Id()), second = Store(cube, Id());
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
}

TEST_F(VolumeServiceTest, ARequestIdThatMadeSomethingElseIsRefused) {
  Store(Cube(), Id());
  v1::Volume made;
  const grpc::Status status = Upload(volumes(), Cube(8).Header(Id()), Cube(8).voxels, &made);
  EXPECT_EQ(status.error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(ReasonOf(status), "REQUEST_ID_REUSED");
}

TEST_F(VolumeServiceTest, TheSameContentTwiceIsOneBlobUntilItsLastVolumeGoes) {
  const Cube cube(16, 1, 77);
  const int before = BlobFiles();
  const v1::Volume first = Store(cube, Id("1")), second = Store(cube, Id("2"));
  EXPECT_NE(first.name(), second.name());
  EXPECT_EQ(first.content_sha256(), second.content_sha256());
  EXPECT_EQ(BlobFiles(), before + 1);
  ASSERT_OK(Delete(first.name()));
  std::string bytes;
  ASSERT_OK(Download(second.name(), 0, &bytes));
  EXPECT_TRUE(bytes == cube.voxels);
  ASSERT_OK(Delete(second.name()));
  EXPECT_EQ(BlobFiles(), before);
  const grpc::Status gone = Delete(second.name());
  EXPECT_EQ(gone.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(gone), "VOLUME_NOT_FOUND");
}

TEST_F(VolumeServiceTest, ContentIsVoxelsTypeKindAndGeometryTogether) {
  const v1::Volume volume = Store(Cube(16, 1), Id("1"));
  EXPECT_NE(Store(Cube(16, 2), Id("2")).content_sha256(), volume.content_sha256());
  v1::CreateVolumeRequest labels = Cube(16, 1).Header(Id("3"));
  labels.mutable_header()->mutable_volume()->set_kind(v1::Volume::LABELS);
  v1::Volume made;
  ASSERT_OK(Upload(volumes(), labels, Cube(16, 1).voxels, &made));
  EXPECT_NE(made.content_sha256(), volume.content_sha256());
}

TEST_F(VolumeServiceTest, ACutUploadGoesOnAtTheByteThatGetUploadTells) {
  const Cube cube;
  v1::CreateVolumeRequest header = cube.Header(Id());
  v1::Volume made;
  grpc::Status cut = Send(volumes(), {header, ChunkOf(cube.voxels.substr(0, 3001))}, &made);
  EXPECT_EQ(cut.error_code(), StatusCode::ABORTED);
  EXPECT_EQ(ReasonOf(cut), "UPLOAD_CUT");
  EXPECT_EQ(Held(Id()).received_bytes(), 3001);
  EXPECT_EQ(Held(Id()).total_bytes(), 8192);

  header.mutable_header()->set_offset(3001);
  ASSERT_OK(Send(volumes(),
                 {header, ChunkOf(cube.voxels.substr(3001)), FinishWith(Sha256Of(cube.voxels))},
                 &made));
  std::string bytes;
  ASSERT_OK(Download(made.name(), 0, &bytes));
  EXPECT_TRUE(bytes == cube.voxels);
  v1::GetUploadRequest request;
  request.set_name("uploads/" + Id());
  ClientContext context;
  v1::Upload upload;
  EXPECT_EQ(volumes().GetUpload(&context, request, &upload).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(VolumeServiceTest, AClientThatDiesInTheMiddleLeavesAnUploadThatGoesOn) {
  const Cube cube;
  {
    ClientContext context;
    v1::Volume made;
    auto writer = volumes().CreateVolume(&context, &made);
    writer->Write(cube.Header(Id()));
    writer->Write(ChunkOf(cube.voxels.substr(0, 1000)));
    WaitUntilHeld(volumes(), Id(), 1000);
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), StatusCode::CANCELLED);
  }
  v1::CreateVolumeRequest header = cube.Header(Id());
  header.mutable_header()->set_offset(1000);
  v1::Volume made;
  grpc::Status status;
  do {  // the server hears of the client's end a moment later
    status = Upload(volumes(), header, "", &made);
  } while (ReasonOf(status) == "UPLOAD_IN_USE");
  EXPECT_EQ(status.error_code(), StatusCode::DATA_LOSS);  // finished with 1000 of 8192 bytes
  EXPECT_EQ(Held(Id()).received_bytes(), 1000);
}

TEST_F(VolumeServiceTest, AnOffsetThatTheServerDoesNotHoldIsAMismatch) {
  const Cube cube;
  v1::CreateVolumeRequest header = cube.Header(Id());
  v1::Volume made;
  Send(volumes(), {header, ChunkOf(cube.voxels.substr(0, 100))}, &made);
  header.mutable_header()->set_offset(99);
  const grpc::Status status = Send(volumes(), {header}, &made);
  EXPECT_EQ(status.error_code(), StatusCode::ABORTED);
  EXPECT_EQ(ReasonOf(status), "OFFSET_MISMATCH");
}

TEST_F(VolumeServiceTest, AnUploadIsWrittenByOneCallAtATime) {
  const Cube cube;
  ClientContext context;
  v1::Volume first, second;
  auto writer = volumes().CreateVolume(&context, &first);
  writer->Write(cube.Header(Id()));
  writer->Write(ChunkOf(cube.voxels.substr(0, 1000)));
  WaitUntilHeld(volumes(), Id(), 1000);
  const grpc::Status busy = Send(volumes(), {cube.Header(Id())}, &second);
  EXPECT_EQ(busy.error_code(), StatusCode::ABORTED);
  EXPECT_EQ(ReasonOf(busy), "UPLOAD_IN_USE");
  writer->WritesDone();
  EXPECT_EQ(ReasonOf(writer->Finish()), "UPLOAD_CUT");
}

TEST_F(VolumeServiceTest, AGivenUpUploadFreesItsBytes) {
  v1::Volume made;
  Send(volumes(), {Cube().Header(Id()), ChunkOf("1234")}, &made);
  v1::DeleteUploadRequest request;
  request.set_name("uploads/" + Id());
  google::protobuf::Empty empty;
  ClientContext first, second;
  EXPECT_OK(volumes().DeleteUpload(&first, request, &empty));
  EXPECT_EQ(ReasonOf(volumes().DeleteUpload(&second, request, &empty)), "UPLOAD_NOT_FOUND");
}

TEST_F(VolumeServiceTest, AChunkWithAWrongChecksumIsRefusedAndTheRestStays) {
  const Cube cube;
  v1::CreateVolumeRequest damaged = ChunkOf(cube.voxels.substr(100, 100));
  (*damaged.mutable_chunk()->mutable_data())[50] ^= 1;
  v1::Volume made;
  const grpc::Status status =
      Send(volumes(), {cube.Header(Id()), ChunkOf(cube.voxels.substr(0, 100)), damaged}, &made);
  EXPECT_EQ(status.error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(ReasonOf(status), "CHECKSUM_MISMATCH");
  EXPECT_EQ(Held(Id()).received_bytes(), 100);
}

TEST_F(VolumeServiceTest, VoxelsThatAreNotThoseOfTheFinalDigestAreRefused) {
  const Cube cube;
  v1::Volume made;
  const grpc::Status status = Send(
      volumes(), {cube.Header(Id()), ChunkOf(cube.voxels), FinishWith(Sha256Of("others"))}, &made);
  EXPECT_EQ(status.error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(ReasonOf(status), "CHECKSUM_MISMATCH");
}

TEST_F(VolumeServiceTest, TooManyBytesAreRefusedAtTheFirstOne) {
  const Cube cube;
  v1::Volume made;
  const grpc::Status status =
      Send(volumes(), {cube.Header(Id()), ChunkOf(cube.voxels), ChunkOf("x")}, &made);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), "TOO_MANY_BYTES");
  EXPECT_EQ(FieldOf(status), "chunk.data");
}

TEST_F(VolumeServiceTest, NonFiniteVoxelsAreRefusedWithTheirPlaceAndLeaveNothing) {
  v1::CreateVolumeRequest header = Cube(2).Header(Id());
  header.mutable_header()->mutable_volume()->set_voxel_type(v1::Volume::FLOAT);
  std::vector<float> voxels(8, 1);
  voxels[6] = std::numeric_limits<float>::quiet_NaN();  // (0, 1, 1)
  v1::Volume made;
  const grpc::Status status = Upload(
      volumes(), header, std::string(reinterpret_cast<const char*>(voxels.data()), 32), &made);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(status), "NON_FINITE_VOXELS");
  EXPECT_NE(status.error_message().find("(0, 1, 1)"), std::string::npos);
  v1::GetUploadRequest request;
  request.set_name("uploads/" + Id());
  ClientContext context;
  v1::Upload upload;
  EXPECT_EQ(volumes().GetUpload(&context, request, &upload).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(VolumeServiceTest, EveryWrongFieldOfAHeaderIsNamed) {
  const std::map<std::string, std::function<void(v1::CreateVolumeRequest::Header&)>> faults = {
      {"header.request_id", [](auto& header) { header.set_request_id("a/b"); }},
      {"header.offset", [](auto& header) { header.set_offset(-1); }},
      {"header.volume.display_name",
       [](auto& header) { header.mutable_volume()->set_display_name(std::string(10000, 'n')); }},
      {"header.volume.modality", [](auto& header) { header.mutable_volume()->set_modality("ct"); }},
      {"header.volume.tags[1]",
       [](auto& header) {
         header.mutable_volume()->add_tags("good");
         header.mutable_volume()->add_tags("line\nbreak");
       }},
      {"header.volume.voxel_type",
       [](auto& header) { header.mutable_volume()->clear_voxel_type(); }},
      {"header.volume.kind",
       [](auto& header) { header.mutable_volume()->set_kind(static_cast<v1::Volume::Kind>(9)); }},
      {"header.volume.grid", [](auto& header) { header.mutable_volume()->clear_grid(); }},
      {"header.volume.grid.size[2]",
       [](auto& header) { header.mutable_volume()->mutable_grid()->set_size(2, 1); }},
      {"header.volume.grid.spacing_mm[0]",
       [](auto& header) { header.mutable_volume()->mutable_grid()->set_spacing_mm(0, 1e9); }},
      {"header.volume.grid.direction",
       [](auto& header) { header.mutable_volume()->mutable_grid()->set_direction(0, 0.5); }},
  };
  for (const auto& [field, fault] : faults) {
    v1::CreateVolumeRequest request = Cube(2).Header(Id());
    fault(*request.mutable_header());
    v1::Volume made;
    const grpc::Status status = Upload(volumes(), request, Cube(2).voxels, &made);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << field;
    EXPECT_EQ(FieldOf(status).rfind(field, 0), 0u) << FieldOf(status) << " for " << field;
    EXPECT_LT(status.error_message().size(), 500u);
  }
}

TEST_F(VolumeServiceTest, AStreamOutOfOrderIsRefused) {
  v1::Volume made;
  EXPECT_EQ(FieldOf(Send(volumes(), {}, &made)), "header");
  EXPECT_EQ(FieldOf(Send(volumes(), {ChunkOf("x")}, &made)), "header");
  EXPECT_EQ(FieldOf(Send(volumes(), {Cube().Header(Id()), Cube().Header(Id())}, &made)), "part");
}

TEST_F(VolumeServiceTest, AnUpdateChangesTheFieldsOfItsMaskAlone) {
  const v1::Volume volume = Store(Cube(2), Id());
  v1::UpdateVolumeRequest request;
  request.mutable_volume()->set_name(volume.name());
  request.mutable_volume()->set_modality("MR");
  request.mutable_volume()->set_display_name("not asked for");
  request.mutable_update_mask()->add_paths("modality");
  ClientContext one, two, three, four;
  v1::Volume updated;
  ASSERT_OK(volumes().UpdateVolume(&one, request, &updated));
  EXPECT_EQ(updated.modality(), "MR");
  EXPECT_EQ(updated.display_name(), "cube");
  request.clear_update_mask();
  ASSERT_OK(volumes().UpdateVolume(&two, request, &updated));
  EXPECT_EQ(updated.display_name(), "not asked for");
  v1::Volume got;
  ASSERT_OK(Get(volume.name(), &got));
  EXPECT_EQ(got.SerializeAsString(), updated.SerializeAsString());
  request.mutable_update_mask()->add_paths("voxel_type");
  EXPECT_EQ(FieldOf(volumes().UpdateVolume(&three, request, &updated)), "update_mask");
  request.mutable_volume()->set_name("volumes/absent");
  request.clear_update_mask();
  EXPECT_EQ(ReasonOf(volumes().UpdateVolume(&four, request, &updated)), "VOLUME_NOT_FOUND");
}

TEST_F(VolumeServiceTest, ListsByFilterInPagesAndNamesWhatIsWrongInAQuery) {
  std::set<std::string> names;
  for (int i = 0; i < 5; ++i) {
    v1::CreateVolumeRequest header = Cube(2).Header(Id(std::to_string(i)));
    header.mutable_header()->mutable_volume()->add_tags("paged");
    v1::Volume made;
    ASSERT_OK(Upload(volumes(), header, Cube(2).voxels, &made));
    names.insert(made.name());
  }
  v1::ListVolumesRequest request;
  request.set_filter("tags:paged AND kind = IMAGE");
  request.set_page_size(2);
  std::multiset<std::string> seen;
  int pages = 0;
  do {
    ClientContext context;
    v1::ListVolumesResponse page;
    ASSERT_OK(volumes().ListVolumes(&context, request, &page));
    EXPECT_LE(page.volumes_size(), 2);
    for (const auto& volume : page.volumes()) seen.insert(volume.name());
    request.set_page_token(page.next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(pages, 3);
  EXPECT_EQ(seen, std::multiset<std::string>(names.begin(), names.end()));

  const auto field_of = [](const std::function<void(v1::ListVolumesRequest&)>& fault) {
    v1::ListVolumesRequest request;
    fault(request);
    ClientContext context;
    v1::ListVolumesResponse page;
    return FieldOf(volumes().ListVolumes(&context, request, &page));
  };
  EXPECT_EQ(field_of([](auto& r) { r.set_filter("colour = red"); }), "filter");
  EXPECT_EQ(field_of([](auto& r) { r.set_order_by("colour"); }), "order_by");
  EXPECT_EQ(field_of([](auto& r) { r.set_page_size(-1); }), "page_size");
  EXPECT_EQ(field_of([](auto& r) { r.set_page_token("forged"); }), "page_token");
}

TEST_F(VolumeServiceTest, APreviewIsAPngAndItsOptionsAreChecked) {
  const v1::Volume volume = Store(Cube(), Id());
  v1::PreviewVolumeRequest request;
  request.set_name(volume.name());
  ClientContext one, two;
  v1::PreviewVolumeResponse preview;
  ASSERT_OK(volumes().PreviewVolume(&one, request, &preview));
  EXPECT_EQ(preview.png().substr(0, 4), "\x89PNG");
  EXPECT_LE(preview.ByteSizeLong(), kMebibyte);
  request.set_max_edge(100000);
  EXPECT_EQ(volumes().PreviewVolume(&two, request, &preview).error_code(),
            StatusCode::INVALID_ARGUMENT);
}

TEST_F(VolumeServiceTest, VoxelsThatTheDiskLostAreToldAndNotMadeUp) {
  const Cube cube(16, 1, 4711);
  const v1::Volume volume = Store(cube, Id());
  const std::string digest = Sha256Of(cube.voxels);
  const std::string blob = folder_->path() + "/data/blobs/" + digest.substr(0, 2) + "/" + digest;
  v1::PreviewVolumeRequest preview;
  preview.set_name(volume.name());
  const auto expect_lost = [&](const std::string& how) {
    ClientContext context;
    v1::PreviewVolumeResponse picture;
    std::string bytes;
    for (const grpc::Status& status : {volumes().PreviewVolume(&context, preview, &picture),
                                       Download(volume.name(), 0, &bytes)}) {
      EXPECT_EQ(status.error_code(), StatusCode::DATA_LOSS) << how;
      EXPECT_EQ(ReasonOf(status), "STORED_DATA_LOST") << how;
      EXPECT_NE(status.error_message().find(volume.name()), std::string::npos);
      EXPECT_EQ(status.error_message().find(folder_->path()), std::string::npos)
          << "a path of the server is none of the client's: " << status.error_message();
    }
  };
  fs::resize_file(blob, 100);
  expect_lost("cut");
  fs::remove(blob);
  expect_lost("gone");
}

TEST_F(VolumeServiceTest, AResumedUploadMustNameTheDigestOfAllItsVoxels) {
  const Cube cube;
  v1::CreateVolumeRequest header = cube.Header(Id());
  v1::Volume made;
  Send(volumes(), {header, ChunkOf(cube.voxels.substr(0, 4000))}, &made);
  header.mutable_header()->set_offset(4000);
  const grpc::Status status =
      Send(volumes(), {header, ChunkOf(cube.voxels.substr(4000)), FinishWith("")}, &made);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(status), "finish.voxels_sha256");
  header.mutable_header()->set_offset(8192);  // what it held stays
  EXPECT_OK(Send(volumes(), {header, FinishWith(Sha256Of(cube.voxels))}, &made));
}

TEST_F(VolumeServiceTest, NamesOfTenThousandCharactersGetAShortAnswer) {
  const std::string name = "volumes/" + std::string(10000, 'n');
  v1::Volume volume;
  std::string bytes;
  v1::ExtractGlobalRequest global;
  global.add_volumes(name);
  v1::ExtractGlobalResponse answer;
  ClientContext context;
  const std::pair<grpc::Status, std::string> answers[] = {
      {Get(name, &volume), "name"},
      {Delete(name), "name"},
      {Download(name, 0, &bytes), "name"},
      {features().ExtractGlobal(&context, global, &answer), "volumes[0]"},
  };
  for (const auto& [status, field] : answers) {
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(FieldOf(status), field);
    EXPECT_LT(status.error_message().size(), 300u);
  }
}

}  // namespace
}  // namespace gvsl
