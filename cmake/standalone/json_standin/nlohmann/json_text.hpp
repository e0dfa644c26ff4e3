// Parser and writer of the JSON stand-in; included by json.hpp.
#ifndef GVSL_STANDIN_NLOHMANN_JSON_TEXT_HPP_
#define GVSL_STANDIN_NLOHMANN_JSON_TEXT_HPP_

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace nlohmann {

// Bytes of the UTF-8 sequence at `at` (RFC 3629: shortest form, no surrogates); 0 if there is none.
inline int Utf8Length(const char* at, const char* end) {
  const auto byte = [at](int i) { return static_cast<unsigned char>(at[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const int length = lead >= 0xc2 && lead <= 0xdf   ? 2
                     : lead >= 0xe0 && lead <= 0xef ? 3
                     : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                    : 0;
  if (length == 0 || end - at < length) return 0;
  for (int i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xed && byte(1) > 0x9f;
  const bool beyond = lead == 0xf4 && byte(1) > 0x8f;
  return overlong || surrogate || beyond ? 0 : length;
}

class JsonParser {
 public:
  JsonParser(const char* begin, const char* end, const json::parser_callback_t& callback)
      : at_(begin), end_(end), callback_(callback) {}

  json Document() {
    json value = Value(0);
    SkipSpace();
    if (at_ != end_) Fail("text behind the value");
    return value;
  }

 private:
  static constexpr int kMaxDepth = 500;  // each level takes some of the stack

  [[noreturn]] static void Fail(const char* what) {
    throw json::exception(std::string("not JSON: ") + what);
  }
  void SkipSpace() {
    while (at_ != end_ && std::strchr(" \t\n\r", *at_) != nullptr && *at_ != '\0') ++at_;
  }
  char Peek() { return at_ == end_ ? '\0' : *at_; }
  bool Skip(char c) {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  void Word(const char* word) {
    for (; *word != '\0'; ++word) {
      if (!Skip(*word)) Fail("an unknown word");
    }
  }
  void Tell(int depth, json::parse_event_t event, json value) {
    if (callback_) callback_(depth, event, value);
  }

  json Value(int depth) {
    SkipSpace();
    switch (Peek()) {
      case '{':
        return ObjectValue(depth);
      case '[':
        return ArrayValue(depth);
      case '"':
        return Text();
      case 't':
        Word("true");
        return true;
      case 'f':
        Word("false");
        return false;
      case 'n':
        Word("null");
        return nullptr;
      default:
        return Number();
    }
  }

  json ObjectValue(int depth) {
    if (depth >= kMaxDepth) Fail("nested too deeply");
    ++at_;
    Tell(depth, json::parse_event_t::object_start, {});
    json::Object object;
    SkipSpace();
    if (!Skip('}')) {
      do {
        SkipSpace();
        if (Peek() != '"') Fail("a name is missing");
        std::string key = Text();
        Tell(depth + 1, json::parse_event_t::key, key);
        SkipSpace();
        if (!Skip(':')) Fail("a colon is missing");
        object[std::move(key)] = Value(depth + 1);
        SkipSpace();
      } while (Skip(','));
      if (!Skip('}')) Fail("an object has no end");
    }
    Tell(depth, json::parse_event_t::object_end, {});
    json value;
    value.value_ = std::move(object);
    return value;
  }

  json ArrayValue(int depth) {
    if (depth >= kMaxDepth) Fail("nested too deeply");
    ++at_;
    Tell(depth, json::parse_event_t::array_start, {});
    json::Array array;
    SkipSpace();
    if (!Skip(']')) {
      do {
        array.push_back(Value(depth + 1));
        SkipSpace();
      } while (Skip(','));
      if (!Skip(']')) Fail("an array has no end");
    }
    Tell(depth, json::parse_event_t::array_end, {});
    json value;
    value.value_ = std::move(array);
    return value;
  }

  unsigned Hex4() {
    unsigned value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = Peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) Fail("\\u needs four hexadecimal digits");
      value = value * 16 + static_cast<unsigned>(digit);
      ++at_;
    }
    return value;
  }

  void Unicode(std::string& text) {
    unsigned code = Hex4();
    if (code >= 0xdc00 && code <= 0xdfff) Fail("a lone surrogate");
    if (code >= 0xd800 && code <= 0xdbff) {
      if (!Skip('\\') || !Skip('u')) Fail("a lone surrogate");
      const unsigned low = Hex4();
      if (low < 0xdc00 || low > 0xdfff) Fail("a lone surrogate");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += static_cast<char>(0xc0 | code >> 6);
      tail(0);
    } else if (code < 0x10000) {
      text += static_cast<char>(0xe0 | code >> 12);
      tail(6);
      tail(0);
    } else {
      text += static_cast<char>(0xf0 | code >> 18);
      tail(12);
      tail(6);
      tail(0);
    }
  }

  std::string Text() {
    static constexpr char kShort[] = "\"\\/bfnrt", kMeant[] = "\"\\/\b\f\n\r\t";
    std::string text;
    ++at_;
    while (!Skip('"')) {
      if (at_ == end_) Fail("a text has no end");
      if (static_cast<unsigned char>(*at_) < 0x20) Fail("a control character in a text");
      if (!Skip('\\')) {
        const int length = Utf8Length(at_, end_);
        if (length == 0) Fail("a text is not UTF-8");
        text.append(at_, static_cast<size_t>(length));
        at_ += length;
      } else if (Skip('u')) {
        Unicode(text);
      } else {
        const char c = Peek();
        const char* found = c == '\0' ? nullptr : std::strchr(kShort, c);
        if (found == nullptr) Fail("an unknown escape");
        text += kMeant[found - kShort];
        ++at_;
      }
    }
    return text;
  }

  void Digits(std::string& text) {
    if (Peek() < '0' || Peek() > '9') Fail("a number lacks digits");
    while (Peek() >= '0' && Peek() <= '9') text += *at_++;
  }

  json Number() {
    std::string text;
    bool whole = true;
    const bool negative = Skip('-');
    if (negative) text += '-';
    if (Skip('0')) {
      text += '0';
    } else {
      Digits(text);
    }
    if (Skip('.')) {
      whole = false;
      text += '.';
      Digits(text);
    }
    if (Skip('e') || Skip('E')) {
      whole = false;
      text += 'e';
      if (Skip('-')) {
        text += '-';
      } else {
        Skip('+');
      }
      Digits(text);
    }
    if (whole) {
      errno = 0;
      char* end = nullptr;
      if (negative) {
        const int64_t number = std::strtoll(text.c_str(), &end, 10);
        if (errno == 0) return number;
      } else {
        const uint64_t number = std::strtoull(text.c_str(), &end, 10);
        if (errno == 0) return number;
      }
    }
    const double number = std::strtod(text.c_str(), nullptr);
    if (!std::isfinite(number)) Fail("a number is out of range");
    return number;
  }

  const char* at_;
  const char* end_;
  const json::parser_callback_t& callback_;
};

class JsonWriter {
 public:
  explicit JsonWriter(json::error_handler_t handler) : handler_(handler) {}

  std::string Write(const json& value) {
    Value(value);
    return std::move(out_);
  }

 private:
  void Value(const json& value) {
    if (value.is_object()) {
      out_ += '{';
      const char* separator = "";
      for (const json::Item& item : value.items()) {
        out_ += separator;
        Text(item.key());
        out_ += ':';
        Value(item.value());
        separator = ",";
      }
      out_ += '}';
    } else if (value.is_array()) {
      out_ += '[';
      const char* separator = "";
      for (const json& element : value) {
        out_ += separator;
        Value(element);
        separator = ",";
      }
      out_ += ']';
    } else if (value.is_string()) {
      Text(value.As<std::string>());
    } else if (value.is_boolean()) {
      out_ += value.As<bool>() ? "true" : "false";
    } else if (value.Is<uint64_t>()) {
      out_ += std::to_string(value.As<uint64_t>());
    } else if (value.Is<int64_t>()) {
      out_ += std::to_string(value.As<int64_t>());
    } else if (value.Is<double>() && std::isfinite(value.As<double>())) {
      Double(value.As<double>());
    } else {
      out_ += "null";
    }
  }

  // With as few digits as read back as the same number.
  void Double(double value) {
    char text[32];
    for (int digits = 15; digits <= 17; ++digits) {
      std::snprintf(text, sizeof(text), "%.*g", digits, value);
      if (std::strtod(text, nullptr) == value) break;
    }
    out_ += text;
    if (std::strpbrk(text, ".e") == nullptr) out_ += ".0";  // it stays floating point
  }

  void Text(const std::string& text) {
    out_ += '"';
    const char* const end = text.data() + text.size();
    for (const char* at = text.data(); at != end;) {
      const int length = Utf8Length(at, end);
      if (length == 0) {
        if (handler_ == json::error_handler_t::strict) throw json::exception("text is not UTF-8");
        if (handler_ == json::error_handler_t::replace) out_ += "\xef\xbf\xbd";
        ++at;
        continue;
      }
      if (*at == '"' || *at == '\\') {
        out_ += '\\';
        out_ += *at;
      } else if (static_cast<unsigned char>(*at) < 0x20) {
        char escape[8];
        std::snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned>(*at));
        out_ += escape;
      } else {
        out_.append(at, static_cast<size_t>(length));
      }
      at += length;
    }
    out_ += '"';
  }

  json::error_handler_t handler_;
  std::string out_;
};

inline json::json(std::initializer_list<json> elements) {
  bool pairs = true;
  for (const json& element : elements) {
    pairs = pairs && element.is_array() && element.size() == 2 && element.at(0).is_string();
  }
  if (!pairs) {
    value_ = Array(elements);
    return;
  }
  Object object;
  for (const json& element : elements) object[element.at(0).As<std::string>()] = element.at(1);
  value_ = std::move(object);
}

inline json json::object() {
  json value;
  value.value_ = Object();
  return value;
}

inline json json::parse(const char* begin, const char* end, const parser_callback_t& callback) {
  return JsonParser(begin, end, callback).Document();
}

inline std::string json::dump(int, char, bool, error_handler_t handler) const {
  return JsonWriter(handler).Write(*this);
}

inline size_t json::size() const {
  if (is_object()) return As<Object>().size();
  if (is_array()) return As<Array>().size();
  return Is<std::nullptr_t>() ? 0 : 1;
}

inline bool json::contains(const std::string& key) const {
  return is_object() && As<Object>().count(key) > 0;
}

inline const json& json::at(const std::string& key) const {
  const Object& object = As<Object>();
  const auto found = object.find(key);
  if (found == object.end()) throw exception("the JSON object has no \"" + key + "\"");
  return found->second;
}

inline const json& json::at(size_t index) const {
  const Array& array = As<Array>();
  if (index >= array.size()) throw exception("the JSON array is shorter than asked for");
  return array[index];
}

inline json& json::operator[](const std::string& key) {
  if (Is<std::nullptr_t>()) value_ = Object();
  if (!is_object()) throw exception("a JSON value is no object");
  return std::get<Object>(value_)[key];
}

}  // namespace nlohmann

#endif  // GVSL_STANDIN_NLOHMANN_JSON_TEXT_HPP_
