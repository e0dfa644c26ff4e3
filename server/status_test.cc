#include "server/status.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"

namespace gvsl {
namespace {

google::rpc::Status DetailsOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

// The first detail of this type, or an empty one.
template <typename Detail>
Detail Find(const grpc::Status& status) {
  Detail detail;
  const google::rpc::Status details = DetailsOf(status);
  for (const auto& any : details.details()) {
    if (any.UnpackTo(&detail)) break;
  }
  return detail;
}

TEST(ToGrpc, CarriesCodeMessageAndReason) {
  const grpc::Status status =
      ToGrpc(WithReason(absl::NotFoundError("there is no volumes/x"), "VOLUME_NOT_FOUND"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "there is no volumes/x");
  EXPECT_EQ(DetailsOf(status).code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(DetailsOf(status).message(), status.error_message());
  EXPECT_EQ(Find<google::rpc::ErrorInfo>(status).reason(), "VOLUME_NOT_FOUND");
  EXPECT_EQ(Find<google::rpc::ErrorInfo>(status).domain(), "gvsl");
}

TEST(ToGrpc, TakesTheCodesNameWhereNoReasonIsGiven) {
  EXPECT_EQ(Find<google::rpc::ErrorInfo>(ToGrpc(absl::InternalError(""))).reason(), "INTERNAL");
}

TEST(ToGrpc, NamesTheFieldOfAnInvalidArgument) {
  const grpc::Status status =
      ToGrpc(absl::InvalidArgumentError("header.volume.grid.size[2]: 1 is too small"));
  const auto bad = Find<google::rpc::BadRequest>(status);
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).field(), "header.volume.grid.size[2]");
  EXPECT_EQ(bad.field_violations(0).description(), "1 is too small");
}

TEST(ToGrpc, NamesEveryFieldWhereEachLineOpensWithOne) {
  const auto bad = Find<google::rpc::BadRequest>(
      ToGrpc(absl::InvalidArgumentError("job.spec.data.crop: 7 is odd\njob.spec.size: no size")));
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(0).field(), "job.spec.data.crop");
  EXPECT_EQ(bad.field_violations(0).description(), "7 is odd");
  EXPECT_EQ(bad.field_violations(1).field(), "job.spec.size");
  EXPECT_EQ(bad.field_violations(1).description(), "no size");
}

TEST(ToGrpc, TakesLinesForTextWhereOneOfThemOpensWithNoField) {
  const auto bad = Find<google::rpc::BadRequest>(
      ToGrpc(absl::InvalidArgumentError("model: it lacks\nunet.inc.weight and others")));
  ASSERT_EQ(bad.field_violations_size(), 1);
  EXPECT_EQ(bad.field_violations(0).description(), "it lacks\nunet.inc.weight and others");
}

TEST(ToGrpc, NamesNoFieldWhereTheMessageOpensWithNone) {
  for (const char* message :
       {"voxel (1, 2, 3) is not finite", "Size: upper case", ": nothing", ""}) {
    EXPECT_EQ(Find<google::rpc::BadRequest>(ToGrpc(absl::InvalidArgumentError(message)))
                  .field_violations_size(),
              0)
        << message;
  }
  EXPECT_EQ(Find<google::rpc::BadRequest>(ToGrpc(absl::NotFoundError("name: not there")))
                .field_violations_size(),
            0);
}

TEST(ToGrpc, SaysWhenToTryAgainWhereWaitingHelps) {
  for (const char* reason : {"QUEUE_FULL", "TOO_MANY_CALLS"}) {
    EXPECT_GT(Find<google::rpc::RetryInfo>(
                  ToGrpc(WithReason(absl::ResourceExhaustedError("busy"), reason)))
                  .retry_delay()
                  .seconds(),
              0);
  }
  EXPECT_EQ(Find<google::rpc::RetryInfo>(
                ToGrpc(WithReason(absl::ResourceExhaustedError("full"), "DISK_FULL")))
                .retry_delay()
                .seconds(),
            0);
}

TEST(ToGrpc, KeepsMessageAndDetailsBelowTheLimitOfTrailers) {
  for (const std::string& message :
       {std::string(100000, 'x'), "field: " + std::string(100000, 'x')}) {
    const grpc::Status status = ToGrpc(absl::InvalidArgumentError(message));
    // gRPC's peers refuse trailers above 8 KiB; a few hundred bytes are for its own.
    EXPECT_LT(status.error_message().size() + status.error_details().size(), 7800u);
    EXPECT_EQ(status.error_message().substr(status.error_message().size() - 3), "...");
  }
}

TEST(ToGrpc, SendsValidUtf8WhateverWasQuoted) {
  const std::string valid = "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\xA9\xBA";
  EXPECT_EQ(ToGrpc(absl::InternalError(valid)).error_message(), valid);
  // A lone continuation, a cut character, an overlong form, a surrogate, a byte that never occurs.
  for (const char* broken :
       {"\x80", "\xE2\x82", "\xC0\xAF", "\xED\xA0\x80", "\xFF", "\xF4\x90\x80\x80"}) {
    const grpc::Status status = ToGrpc(absl::InternalError(std::string("quoted ") + broken));
    EXPECT_EQ(status.error_message().find_first_not_of("quoted ?"), std::string::npos);
    EXPECT_EQ(DetailsOf(status).message(), status.error_message());
  }
  // Cut between characters, not inside of one.
  std::string euros;
  for (int i = 0; i < 5000; ++i) euros += "\xE2\x82\xAC";
  const std::string cut = ToGrpc(absl::InternalError(euros)).error_message();
  EXPECT_EQ((cut.size() - 3) % 3, 0u);
}

TEST(ToGrpc, LeavesSuccessAlone) { EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok()); }

}  // namespace
}  // namespace gvsl
