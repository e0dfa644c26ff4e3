#include "server/guarded.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace gvsl {
namespace {

TEST(Guarded, GivesTheBodysStatus) {
  EXPECT_EQ(Guarded([] { return absl::DataLossError("its words"); }),
            absl::DataLossError("its words"));
}

TEST(Guarded, TellsThatMemoryIsShort) {
  EXPECT_EQ(Guarded([]() -> absl::Status { throw std::bad_alloc(); }).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(Guarded, KeepsAnExceptionsWordsFromTheClient) {
  const absl::Status status =
      Guarded([]() -> absl::Status { throw std::runtime_error("/a/path/of/the/server"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(std::string(status.message()).find("/a/path"), std::string::npos) << status;
}

TEST(Guarded, EndsWhateverIsThrown) {
  EXPECT_EQ(Guarded([]() -> absl::Status { throw 7; }).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace gvsl
