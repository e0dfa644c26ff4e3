#include "client/html.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace gvsl {

std::string HtmlText(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string HtmlPng(const std::string& png, const std::string& words) {
  return absl::StrCat("<img alt=\"", HtmlText(words), "\" src=\"data:image/png;base64,",
                      absl::Base64Escape(png), "\">");
}

std::string HtmlTable(const std::vector<std::vector<std::string>>& rows, bool heading) {
  std::string table = "<table>\n";
  for (size_t i = 0; i < rows.size(); ++i) {
    const char* cell = heading && i == 0 ? "th" : "td";
    absl::StrAppend(&table, "<tr>");
    for (const std::string& content : rows[i])
      absl::StrAppend(&table, "<", cell, ">", content, "</", cell, ">");
    absl::StrAppend(&table, "</tr>\n");
  }
  return table + "</table>\n";
}

std::string HtmlPage(const std::string& title, const std::string& body) {
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>", HtmlText(title),
      "</title><style>body{font-family:sans-serif;max-width:72em;margin:2em auto;padding:0 1em}"
      "td,th{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}"
      "img{max-width:100%;background:#000}.pair{display:flex;flex-wrap:wrap;gap:1em}"
      "figure{margin:0 0 1em}</style></head>\n<body><h1>",
      HtmlText(title), "</h1>\n", body, "</body></html>\n");
}

}  // namespace gvsl
