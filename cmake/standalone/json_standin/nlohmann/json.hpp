// Stand-in for the few names of nlohmann's JSON that model/ uses, with that library's meanings, for
// builds with GVSL_MODEL_ONLY where it is absent (docs/adr/0002-model-builds-alone.md). Never part
// of the service. Reads RFC 8259 strictly; writes compact JSON.
#ifndef GVSL_STANDIN_NLOHMANN_JSON_HPP_
#define GVSL_STANDIN_NLOHMANN_JSON_HPP_

#include <array>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace nlohmann {

class json {
 public:
  class exception : public std::exception {
   public:
    explicit exception(std::string what) : what_(std::move(what)) {}
    const char* what() const noexcept override { return what_.c_str(); }

   private:
    std::string what_;
  };
  // What to do with text that is not UTF-8: throw, write U+FFFD for each byte, leave it out.
  enum class error_handler_t { strict, replace, ignore };
  enum class parse_event_t { object_start, object_end, array_start, array_end, key, value };
  // Told of objects and keys alone, with the number of open objects and arrays. It must return
  // true; to stop, it throws.
  using parser_callback_t = std::function<bool(int depth, parse_event_t event, json& parsed)>;

  json() = default;
  json(std::nullptr_t) {}  // NOLINT: these are implicit in the original, too
  json(const char* value) : value_(std::string(value)) {}  // NOLINT
  json(std::string value) : value_(std::move(value)) {}    // NOLINT
  template <typename T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
  json(T value) {  // NOLINT
    if constexpr (std::is_same_v<T, bool>) {
      value_ = value;
    } else if constexpr (std::is_floating_point_v<T>) {
      value_ = static_cast<double>(value);
    } else if constexpr (std::is_unsigned_v<T>) {
      value_ = static_cast<uint64_t>(value);
    } else {
      value_ = static_cast<int64_t>(value);
    }
  }
  template <typename T>
  json(const std::vector<T>& values) : value_(Array(values.begin(), values.end())) {}  // NOLINT
  template <typename T, size_t N>
  json(const std::array<T, N>& values) : value_(Array(values.begin(), values.end())) {}  // NOLINT
  // An object if every element is a pair that begins with text, else an array.
  json(std::initializer_list<json> elements);  // NOLINT
  static json object();

  // Throw json::exception where the text is not JSON.
  static json parse(const char* begin, const char* end, const parser_callback_t& callback = {});
  static json parse(const std::string& text) {
    return parse(text.data(), text.data() + text.size());
  }
  // `indent`, `fill` and `ascii` are as the defaults have them, whatever is given.
  std::string dump(int indent = -1, char fill = ' ', bool ascii = false,
                   error_handler_t handler = error_handler_t::strict) const;

  bool is_object() const { return Is<Object>(); }
  bool is_array() const { return Is<Array>(); }
  bool is_string() const { return Is<std::string>(); }
  bool is_boolean() const { return Is<bool>(); }
  bool is_number_integer() const { return Is<int64_t>() || Is<uint64_t>(); }
  bool is_number() const { return is_number_integer() || Is<double>(); }

  // Throws json::exception if the value is of another kind; numbers convert as by static_cast.
  template <typename T>
  T get() const {
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::string>) {
      return As<T>();
    } else {
      static_assert(std::is_arithmetic_v<T>, "the stand-in has no other conversions");
      if (const auto* number = std::get_if<int64_t>(&value_)) return static_cast<T>(*number);
      if (const auto* number = std::get_if<uint64_t>(&value_)) return static_cast<T>(*number);
      return static_cast<T>(As<double>());
    }
  }

  // Of an object or array; 1 for any other value but null.
  size_t size() const;
  bool contains(const std::string& key) const;
  const json& at(const std::string& key) const;
  const json& at(const char* key) const { return at(std::string(key)); }
  const json& at(size_t index) const;
  const json& at(int index) const { return at(static_cast<size_t>(index)); }
  template <typename Key>
  const json& operator[](Key key) const {
    return at(key);
  }
  // Makes the entry where it is missing, and an object of null.
  json& operator[](const std::string& key);
  json& operator[](const char* key) { return (*this)[std::string(key)]; }

  // Elements of an array.
  std::vector<json>::const_iterator begin() const { return As<Array>().begin(); }
  std::vector<json>::const_iterator end() const { return As<Array>().end(); }

  class Item {
   public:
    Item(const std::string& key, const json& value) : key_(&key), value_(&value) {}
    const std::string& key() const { return *key_; }
    const json& value() const { return *value_; }

   private:
    const std::string* key_;
    const json* value_;
  };
  // Entries of an object, by key.
  std::vector<Item> items() const {
    std::vector<Item> all;
    for (const auto& [key, value] : As<Object>()) all.emplace_back(key, value);
    return all;
  }

 private:
  friend class JsonParser;
  friend class JsonWriter;
  using Array = std::vector<json>;
  using Object = std::map<std::string, json>;

  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(value_);
  }
  template <typename T>
  const T& As() const {
    if (const T* value = std::get_if<T>(&value_)) return *value;
    throw exception("a JSON value is of another kind than asked for");
  }

  std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

}  // namespace nlohmann

#include "nlohmann/json_text.hpp"

#endif  // GVSL_STANDIN_NLOHMANN_JSON_HPP_
