// Pages about searches; tests/registration_cli_test.py reads one about a registration.
#include "client/reports.h"

#include <gtest/gtest.h>

#include "client/html.h"

namespace gvsl {
namespace {

v1::SearchVolumesResponse AnswerWithRegions() {
  v1::SearchVolumesResponse answer;
  auto* hit = answer.add_hits();
  hit->set_volume("volumes/a");
  hit->set_display_name("a <b> & \"c\"");
  hit->mutable_aligned()->mutable_verdict()->set_quality(v1::RegistrationVerdict::DOUBTFUL);
  hit->mutable_aligned()->mutable_verdict()->set_reason("only 40 % of it is shown");
  auto* regions = hit->mutable_aligned()->mutable_regions();
  for (int i = 0; i < 3; ++i) {
    regions->mutable_grid()->add_size(2);
    regions->mutable_grid()->add_spacing_mm(1);
    regions->mutable_grid()->add_origin_mm(0);
    for (int j = 0; j < 3; ++j) regions->mutable_grid()->add_direction(i == j ? 1 : 0);
  }
  for (int i = 0; i < 8; ++i) regions->add_ncc(0.1f * static_cast<float>(i));
  return answer;
}

TEST(HtmlTest, TextIsNeverMarkup) { EXPECT_EQ(HtmlText("<b a=\"'&"), "&lt;b a=&quot;&#39;&amp;"); }

TEST(SearchReportTest, ShowsEachHitWithItsPreviewVerdictAndRegions) {
  const auto page = SearchReport("volumes/q", AnswerWithRegions(),
                                 {{"volumes/a", "picture a"}, {"volumes/q", "picture q"}});
  ASSERT_TRUE(page.ok()) << page.status();
  for (const char* part :
       {"a &lt;b&gt; &amp; &quot;c&quot;", "DOUBTFUL", "only 40 % of it is shown",
        "cGljdHVyZSBh" /* picture a in base64 */, "cGljdHVyZSBx",
        "alt=\"correlation in each region, slice by slice\" src=\"data:image/png;base64,iVBOR"}) {
    EXPECT_NE(page->find(part), std::string::npos) << part;
  }
  EXPECT_EQ(page->find("http"), std::string::npos) << "nothing is loaded from elsewhere";
}

TEST(SearchReportTest, AHitWithoutAPreviewIsStillShown) {
  const auto page = SearchReport("volumes/q", AnswerWithRegions(), {});
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_NE(page->find("volumes/a"), std::string::npos);
}

TEST(SearchReportTest, RefusesRegionsThatAreNotAsManyAsTheirGridSays) {
  auto answer = AnswerWithRegions();
  answer.mutable_hits(0)->mutable_aligned()->mutable_regions()->mutable_ncc()->RemoveLast();
  EXPECT_EQ(SearchReport("volumes/q", answer, {}).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace gvsl
