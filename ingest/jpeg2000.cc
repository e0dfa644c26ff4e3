#include "ingest/jpeg2000.h"

#include <openjpeg-2.5/openjpeg.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace gvsl {
namespace {

// The codestream as OpenJPEG reads it.
struct Source {
  const uint8_t* data;
  size_t size, at = 0;
};

constexpr OPJ_SIZE_T kEnd = static_cast<OPJ_SIZE_T>(-1);

OPJ_SIZE_T ReadSource(void* buffer, OPJ_SIZE_T count, void* user) {
  Source& source = *static_cast<Source*>(user);
  if (source.at >= source.size) return kEnd;
  count = std::min<OPJ_SIZE_T>(count, source.size - source.at);
  std::memcpy(buffer, source.data + source.at, count);
  source.at += count;
  return count;
}

OPJ_OFF_T SkipSource(OPJ_OFF_T count, void* user) {
  Source& source = *static_cast<Source*>(user);
  if (count < 0 || static_cast<size_t>(count) > source.size - source.at) return -1;
  source.at += static_cast<size_t>(count);
  return count;
}

OPJ_BOOL SeekSource(OPJ_OFF_T position, void* user) {
  Source& source = *static_cast<Source*>(user);
  if (position < 0 || static_cast<size_t>(position) > source.size) return OPJ_FALSE;
  source.at = static_cast<size_t>(position);
  return OPJ_TRUE;
}

struct Free {
  void operator()(opj_codec_t* codec) const { opj_destroy_codec(codec); }
  void operator()(opj_image_t* image) const { opj_image_destroy(image); }
};

void KeepMessage(const char* message, void* user) {
  std::string& text = *static_cast<std::string*>(user);
  text = message;
  while (!text.empty() && text.back() == '\n') text.pop_back();
}

}  // namespace

absl::StatusOr<std::vector<uint16_t>> DecodeJpeg2000(const uint8_t* codestream, size_t size,
                                                     int columns, int rows) {
  std::string message;
  const auto damaged = [&](const char* step) {
    return absl::DataLossError(
        absl::StrCat("JPEG 2000: ", step, message.empty() ? "" : ": ", message));
  };
  // A bare codestream, as DICOM wants it, or the boxes of a JP2 file, as some write.
  static constexpr uint8_t kJp2Signature[] = {0, 0, 0, 12, 'j', 'P'};
  const bool is_file = size > sizeof(kJp2Signature) &&
                       std::memcmp(codestream, kJp2Signature, sizeof(kJp2Signature)) == 0;
  std::unique_ptr<opj_codec_t, Free> codec(
      opj_create_decompress(is_file ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K));
  Source source{codestream, size};
  std::unique_ptr<opj_stream_t, void (*)(opj_stream_t*)> stream(
      opj_stream_default_create(OPJ_TRUE),
      [](opj_stream_t* stream) { opj_stream_destroy(stream); });
  if (codec == nullptr || stream == nullptr) return absl::ResourceExhaustedError("no memory");
  opj_set_error_handler(codec.get(), KeepMessage, &message);
  opj_stream_set_read_function(stream.get(), ReadSource);
  opj_stream_set_skip_function(stream.get(), SkipSource);
  opj_stream_set_seek_function(stream.get(), SeekSource);
  opj_stream_set_user_data(stream.get(), &source, nullptr);
  opj_stream_set_user_data_length(stream.get(), size);

  opj_dparameters_t parameters;
  opj_set_default_decoder_parameters(&parameters);
  opj_image_t* raw_image = nullptr;
  if (!opj_setup_decoder(codec.get(), &parameters) ||
      !opj_read_header(stream.get(), codec.get(), &raw_image)) {
    return damaged("its header is damaged");
  }
  std::unique_ptr<opj_image_t, Free> image(raw_image);
  const auto fits = [&] {
    const opj_image_comp_t& component = image->comps[0];
    return image->numcomps == 1 && component.prec <= 16 &&
           component.w == static_cast<OPJ_UINT32>(columns) &&
           component.h == static_cast<OPJ_UINT32>(rows);
  };
  if (image->numcomps != 1) return damaged("it has several components");
  // What is to be decoded is known before its memory is taken.
  if (!fits()) return damaged("its size or depth is not the one that the image promises");
  if (!opj_decode(codec.get(), stream.get(), image.get()) ||
      !opj_end_decompress(codec.get(), stream.get()) || !fits() ||
      image->comps[0].data == nullptr) {
    return damaged("it cannot be decoded");
  }
  const OPJ_INT32* data = image->comps[0].data;
  std::vector<uint16_t> pixels(static_cast<size_t>(columns) * rows);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint16_t>(data[i]);
  return pixels;
}

}  // namespace gvsl
