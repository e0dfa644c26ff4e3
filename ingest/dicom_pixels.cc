#include "ingest/dicom_pixels.h"

#include "ingest/dicom_attributes.h"
// The codecs come after DCMTK's configuration, which dicom_attributes.h includes.
#include <dcmtk/dcmdata/dccodec.h>
#include <dcmtk/dcmdata/dcfcache.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpls/djdecode.h>

#include <algorithm>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "ingest/jpeg2000.h"

namespace gvsl {
namespace {

constexpr Uint32 kMaxValueInMemory = 4096;

// DCMTK keeps its codecs in a list of the process.
void RegisterCodecs() {
  static std::once_flag once;
  std::call_once(once, [] {
    DJDecoderRegistration::registerCodecs();
    DJLSDecoderRegistration::registerCodecs();
    DcmRLEDecoderRegistration::registerCodecs();
  });
}

absl::Status Damaged(const OFCondition& condition) {
  return absl::DataLossError(absl::StrCat("its pixels are damaged: ", condition.text()));
}

// The bytes of one frame, whose fragments are joined.
absl::StatusOr<std::vector<uint8_t>> Codestream(DcmPixelSequence& sequence, int frame,
                                                int frame_count) {
  Uint32 first = 0, last = static_cast<Uint32>(sequence.card());  // item 0 is the offset table
  OFCondition found =
      DcmCodec::determineStartFragment(static_cast<Uint32>(frame), frame_count, &sequence, first);
  if (found.good() && frame + 1 < frame_count) {
    found = DcmCodec::determineStartFragment(static_cast<Uint32>(frame) + 1, frame_count, &sequence,
                                             last);
  }
  if (found.bad()) return Damaged(found);
  std::vector<uint8_t> bytes;
  for (Uint32 fragment = first; fragment < last; ++fragment) {
    DcmPixelItem* item = nullptr;
    Uint8* data = nullptr;
    OFCondition read = sequence.getItem(item, fragment);
    if (read.good()) read = item->getUint8Array(data);
    if (read.bad() || data == nullptr) return Damaged(read);
    bytes.insert(bytes.end(), data, data + item->getLength());
  }
  return bytes;
}

// Whether the segments of an RLE frame lie within it, one behind the other (PS3.5 G.5): DCMTK 3.6.7
// reads wherever the header says.
absl::Status CheckRleHeader(const std::vector<uint8_t>& frame) {
  constexpr size_t kHeaderBytes = 64, kMostSegments = 15;
  const auto number = [&](size_t i) {  // little endian
    uint32_t value = 0;
    for (size_t byte = 4; byte-- > 0;) value = value << 8 | frame[4 * i + byte];
    return value;
  };
  const absl::Status damaged = absl::DataLossError("its pixels are damaged: no RLE header");
  if (frame.size() < kHeaderBytes || number(0) < 1 || number(0) > kMostSegments) return damaged;
  size_t before = kHeaderBytes;
  for (size_t segment = 1; segment <= number(0); ++segment) {
    if (number(segment) < before || number(segment) > frame.size()) return damaged;
    before = number(segment);
  }
  return absl::OkStatus();
}

}  // namespace

struct DicomPixelFile::Impl {
  DcmFileFormat file;
  DcmFileCache cache;
  DcmPixelData* pixels = nullptr;
  E_TransferSyntax syntax = EXS_Unknown;
  int rows = 0, columns = 0, frame_count = 1, bits_allocated = 0, bits_stored = 0;

  bool is_jpeg2000() const { return syntax == EXS_JPEG2000 || syntax == EXS_JPEG2000LosslessOnly; }

  absl::StatusOr<std::vector<uint8_t>> Compressed(int index) {
    DcmPixelSequence* sequence = nullptr;
    const OFCondition found = pixels->getEncapsulatedRepresentation(syntax, nullptr, sequence);
    if (found.bad() || sequence == nullptr) return Damaged(found);
    return Codestream(*sequence, index, frame_count);
  }

  absl::StatusOr<std::vector<uint16_t>> Jpeg2000Frame(int index) {
    auto bytes = Compressed(index);
    if (!bytes.ok()) return bytes.status();
    return DecodeJpeg2000(bytes->data(), bytes->size(), columns, rows);
  }

  absl::StatusOr<std::vector<uint16_t>> DcmtkFrame(int index) {
    if (syntax == EXS_RLELossless) {
      auto bytes = Compressed(index);
      if (!bytes.ok()) return bytes.status();
      if (absl::Status header = CheckRleHeader(*bytes); !header.ok()) return header;
    }
    const size_t count = static_cast<size_t>(rows) * columns;
    std::vector<uint16_t> values(count + 1);  // DCMTK pads to an even number of bytes
    Uint32 fragment = 0;
    OFString colour_model;
    const OFCondition read = pixels->getUncompressedFrame(
        file.getDataset(), static_cast<Uint32>(index), fragment, values.data(),
        static_cast<Uint32>(values.size() * sizeof(uint16_t)), colour_model, &cache);
    if (read.bad()) return Damaged(read);
    values.resize(count);
    // JPEG of at most 8 bits gives bytes, also where 16 bits are allocated.
    const bool is_jpeg = DcmXfer(syntax).isEncapsulated() && syntax != EXS_RLELossless &&
                         syntax != EXS_JPEGLSLossless && syntax != EXS_JPEGLSLossy;
    if (bits_allocated == 8 || (is_jpeg && bits_stored <= 8)) {
      // In place, from the back.
      const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
      for (size_t i = count; i-- > 0;) values[i] = bytes[i];
    }
    return values;
  }
};

DicomPixelFile::DicomPixelFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DicomPixelFile::DicomPixelFile(DicomPixelFile&&) noexcept = default;
DicomPixelFile& DicomPixelFile::operator=(DicomPixelFile&&) noexcept = default;
DicomPixelFile::~DicomPixelFile() = default;

void PrepareDicomPixels() {
  RegisterCodecs();
  dcmDataDict.isDictionaryLoaded();
}

absl::StatusOr<DicomPixelFile> DicomPixelFile::Open(const std::string& path) {
  RegisterCodecs();
  auto impl = std::make_unique<Impl>();
  try {
    const OFCondition loaded =
        impl->file.loadFile(OFFilename(path.c_str()), EXS_Unknown, EGL_noChange, kMaxValueInMemory);
    if (loaded.bad()) return Damaged(loaded);
    DcmDataset& dataset = *impl->file.getDataset();
    DcmElement* element = nullptr;
    if (dataset.findAndGetElement(DCM_PixelData, element).bad() ||
        element->ident() != EVR_PixelData) {
      return absl::DataLossError("it has no pixel data");
    }
    impl->pixels = static_cast<DcmPixelData*>(element);
    impl->syntax = dataset.getOriginalXfer();
    impl->rows = IntegerOf(dataset, DCM_Rows).value_or(0);
    impl->columns = IntegerOf(dataset, DCM_Columns).value_or(0);
    impl->frame_count = std::max(1, IntegerOf(dataset, DCM_NumberOfFrames).value_or(1));
    impl->bits_allocated = IntegerOf(dataset, DCM_BitsAllocated).value_or(0);
    impl->bits_stored = IntegerOf(dataset, DCM_BitsStored).value_or(impl->bits_allocated);
    if (impl->rows < 1 || impl->columns < 1 || impl->rows > 65535 || impl->columns > 65535 ||
        (impl->bits_allocated != 8 && impl->bits_allocated != 16) ||
        IntegerOf(dataset, DCM_SamplesPerPixel).value_or(1) != 1) {
      return absl::DataLossError("it is no image of grey values in 8 or 16 bits");
    }
  } catch (const std::exception& exception) {
    return absl::DataLossError(exception.what());
  }
  return DicomPixelFile(std::move(impl));
}

absl::StatusOr<std::vector<uint16_t>> DicomPixelFile::Frame(int index) {
  if (index < 0 || index >= impl_->frame_count) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no frame ", index + 1, " among ", impl_->frame_count));
  }
  try {
    return impl_->is_jpeg2000() ? impl_->Jpeg2000Frame(index) : impl_->DcmtkFrame(index);
  } catch (const std::exception& exception) {
    return absl::DataLossError(exception.what());
  }
}

}  // namespace gvsl
