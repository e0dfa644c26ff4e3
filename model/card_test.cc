#include "model/card.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <set>
#include <vector>

namespace gvsl {
namespace {

using Method = IntensityRule::Method;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

ModelCard UnusualCard() {
  ModelCard card;
  card.size = "custom";
  card.widths = {16, 24, 48, 96, 160};
  card.geometry = Geometry::kOfficial;
  card.orientation = "RAS";
  card.spacing_mm = {0.1, 1.0 / 3, 2.5};
  card.ct = {Method::kPercentile, 0, 0.5, 99.5};
  card.other = {Method::kWindow, -1024, 1e-7, 1e22};
  card.crop = 96;
  card.has_heads = false;
  card.provenance = "\"quotes\", \\, \n, \t, \x01 and \xe2\x82\xac";
  return card;
}

TEST(Card, ComesBackFromJsonWithEveryFieldAndBit) {
  for (const ModelCard& card : {ModelCard(), UnusualCard()}) {
    const auto read = CardFromJson(CardToJson(card));
    ASSERT_TRUE(read.ok()) << Message(read.status());
    EXPECT_EQ(read->size, card.size);
    EXPECT_EQ(read->widths, card.widths);
    EXPECT_EQ(static_cast<int>(read->geometry), static_cast<int>(card.geometry));
    EXPECT_EQ(read->orientation, card.orientation);
    EXPECT_EQ(read->spacing_mm, card.spacing_mm);
    for (const auto& [a, b] : {std::pair{read->ct, card.ct}, {read->other, card.other}}) {
      EXPECT_EQ(static_cast<int>(a.method), static_cast<int>(b.method));
      EXPECT_EQ(a.shift, b.shift);
      EXPECT_EQ(a.low, b.low);
      EXPECT_EQ(a.high, b.high);
    }
    EXPECT_EQ(read->crop, card.crop);
    EXPECT_EQ(read->has_heads, card.has_heads);
    EXPECT_EQ(read->provenance, card.provenance);
  }
}

TEST(Card, KeepsDefaultsForAbsentFields) {
  const auto card = CardFromJson("{}");
  ASSERT_TRUE(card.ok()) << Message(card.status());
  EXPECT_EQ(CardToJson(*card), CardToJson(ModelCard()));
}

TEST(Card, TakesTheWidthsFromTheSizeAndTheSizeFromTheWidths) {
  const auto sized = CardFromJson(R"({"size":"tiny"})");
  ASSERT_TRUE(sized.ok()) << Message(sized.status());
  EXPECT_EQ(sized->widths, (std::array<int64_t, 5>{8, 16, 32, 64, 128}));
  const auto wide = CardFromJson(R"({"widths":[16,32,64,128,256]})");
  ASSERT_TRUE(wide.ok()) << Message(wide.status());
  EXPECT_EQ(wide->size, "small");
}

TEST(Card, NamesTheFieldThatIsWrong) {
  for (const auto& [json, field] : std::vector<std::pair<const char*, const char*>>{
           {R"({"colour":1})", "colour: unknown field"},
           {R"({"ct":{"method":"window","gain":2}})", "ct.gain: unknown field"},
           {R"({"schema_version":2})", "schema_version"},
           {R"({"schema_version":"1"})", "schema_version"},
           {R"({"size":3})", "size"},
           {R"({"size":"huge"})", "size"},
           {R"({"size":"tiny","widths":[32,64,128,256,512]})", "size"},
           {R"({"widths":[32,64,128,256]})", "widths"},
           {R"({"widths":[32,64,128,256,512.0]})", "widths"},
           {R"({"widths":[32,64,128,256,513]})", "widths"},
           {R"({"widths":[0,64,128,256,512]})", "widths"},
           {R"({"widths":[32,64,128,256,8192]})", "widths"},
           {R"({"widths":[32,64,128,256,56]})", "widths"},
           {R"({"widths":[32,64,128,256,18446744073709551615]})", "widths"},
           {R"({"geometry":"flat"})", "geometry"},
           {R"({"geometry":1})", "geometry"},
           {R"({"orientation":"LPA"})", "orientation"},
           {R"({"orientation":["L","P","S"]})", "orientation"},
           {R"({"spacing_mm":[1,1]})", "spacing_mm"},
           {R"({"spacing_mm":[1,1,"1"]})", "spacing_mm"},
           {R"({"spacing_mm":[1,1,0]})", "spacing_mm"},
           {R"({"spacing_mm":[1,1,-1]})", "spacing_mm"},
           {R"({"ct":3})", "ct"},
           {R"({"ct":{"method":"log"}})", "ct.method"},
           {R"({"ct":{"low":"0"}})", "ct.low"},
           {R"({"ct":{"low":5,"high":5}})", "ct.low"},
           {R"({"other":{"method":"percentile","low":-1,"high":99}})", "other"},
           {R"({"other":{"method":"percentile","low":1,"high":101}})", "other"},
           {R"({"crop":100})", "crop"},
           {R"({"crop":-16})", "crop"},
           {R"({"crop":128.0})", "crop"},
           {R"({"has_heads":1})", "has_heads"},
           {R"({"provenance":null})", "provenance"},
           {R"({"crop":128,"crop":64})", "\"crop\" stands twice"},
           {R"({"crop":)", "not JSON"},
           {R"([1])", "not a JSON object"},
           {"{\"provenance\":\"\xff\"}", "not JSON"}}) {
    const auto card = CardFromJson(json);
    ASSERT_FALSE(card.ok()) << json;
    EXPECT_EQ(card.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_NE(Message(card.status()).find(field), std::string::npos)
        << json << " gave: " << Message(card.status());
  }
}

TEST(Card, RefusesNumbersThatAreNone) {
  ModelCard card;
  card.spacing_mm[1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(Message(ValidateCard(card)).find("spacing_mm"), std::string::npos);
  card = ModelCard();
  card.other.shift = std::numeric_limits<double>::infinity();
  EXPECT_NE(Message(ValidateCard(card)).find("other"), std::string::npos);
  card = ModelCard();
  card.provenance = std::string(65537, 'x');
  EXPECT_NE(Message(ValidateCard(card)).find("provenance"), std::string::npos);
}

TEST(Card, WritesProvenanceThatIsNotUtf8AsUtf8) {
  ModelCard card;
  card.provenance = "Universit\xe4t";
  const auto read = CardFromJson(CardToJson(card));
  ASSERT_TRUE(read.ok()) << Message(read.status());
  EXPECT_EQ(read->provenance, "Universit\xef\xbf\xbdt");
}

TEST(Fingerprint, ChangesWithEverythingThatChangesTheFeatures) {
  const std::vector<std::function<void(ModelCard&)>> changes = {
      [](ModelCard& c) { c.orientation = "RAS"; },
      [](ModelCard& c) { c.spacing_mm[0] = 1.0000000001; },
      [](ModelCard& c) { c.spacing_mm[2] = 2; },
      [](ModelCard& c) { c.ct.shift = 1024; },
      [](ModelCard& c) { c.ct.low = -1; },
      [](ModelCard& c) { c.ct.high = 2047; },
      [](ModelCard& c) {
        c.ct = {Method::kPercentile, 0, 0, 100};
      },
      [](ModelCard& c) {
        c.ct = {Method::kPercentile, 0, 1, 100};
      },
      [](ModelCard& c) {
        c.ct = {Method::kMinMax, 0, 0, 0};
      },
      [](ModelCard& c) {
        c.other = {Method::kWindow, 0, 0, 2048};
      },
      [](ModelCard& c) { c.widths[2] = 136; }};
  std::set<std::string> seen = {Fingerprint(ModelCard(), "w")};
  EXPECT_TRUE(seen.insert(Fingerprint(ModelCard(), "other weights")).second);
  for (size_t i = 0; i < changes.size(); ++i) {
    ModelCard card;
    changes[i](card);
    EXPECT_TRUE(seen.insert(Fingerprint(card, "w")).second) << "change " << i;
  }
}

TEST(Fingerprint, ChangesWithNothingElse) {
  ModelCard plain;
  plain.ct = {Method::kWindow, 1024, 0, 2048};
  const std::vector<std::function<void(ModelCard&)>> changes = {
      [](ModelCard& c) { c.provenance = "elsewhere"; },
      [](ModelCard& c) { c.size = "custom"; },
      [](ModelCard& c) { c.crop = 64; },
      [](ModelCard& c) { c.has_heads = false; },
      [](ModelCard& c) { c.geometry = Geometry::kOfficial; },  // of the heads alone
      [](ModelCard& c) {
        c.ct = {Method::kWindow, 0, -1024, 1024};
      },  // the same window
      [](ModelCard& c) { c.ct.shift = 1024.0; },
      [](ModelCard& c) { c.other.shift = 7; },   // falls out of min_max
      [](ModelCard& c) { c.other.high = 100; },  // min_max does not look at it
      [](ModelCard& c) { c.other.low = -0.0; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    ModelCard card = plain;
    changes[i](card);
    EXPECT_EQ(Fingerprint(card, "w"), Fingerprint(plain, "w")) << "change " << i;
  }
}

TEST(Fingerprint, IsTheSameOnEveryMachineAndWithEveryJsonLibrary) {
  // Stored beside features: another value here makes every stored vector incomparable.
  EXPECT_EQ(PreprocessingDigest(ModelCard()),
            "00377f9da589754258dcc8dfd43c7fd100086827c92f7974f3449b009712dda0");
}

}  // namespace
}  // namespace gvsl
