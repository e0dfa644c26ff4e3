// Self-contained HTML pages: nothing in them is loaded from elsewhere.
#ifndef GVSL_CLIENT_HTML_H_
#define GVSL_CLIENT_HTML_H_

#include <string>
#include <vector>

namespace gvsl {

// Text as content or attribute.
std::string HtmlText(const std::string& text);
// An image with its bytes, and words for who does not see it.
std::string HtmlPng(const std::string& png, const std::string& words);
// Cells are HTML; the first row is a heading where `heading` says so.
std::string HtmlTable(const std::vector<std::vector<std::string>>& rows, bool heading);
std::string HtmlPage(const std::string& title, const std::string& body);

}  // namespace gvsl

#endif  // GVSL_CLIENT_HTML_H_
