#include "client/job_spec.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace gvsl {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;
using google::protobuf::io::Tokenizer;

constexpr size_t kMostQuoted = 60;  // characters of the user's text in a message

std::string Quoted(const std::string& text) {
  return absl::StrCat("\"", text.substr(0, kMostQuoted), "\"");
}

// Keeps the first error.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line_of_error, int column_of_error, const std::string& message) override {
    if (!text.empty()) return;
    line = line_of_error;
    column = column_of_error;
    text = message;
  }
  int line = 0, column = 0;  // from 0
  std::string text;
};

// The field at which an error stands, and its line: the parser tells only where it stopped reading,
// and of a wrong enum or bool it tells the place behind it.
struct Place {
  std::string field;  // path
  int line = 0;       // from 0
};

Place PlaceOf(const FirstError& error, const std::string& text) {
  google::protobuf::io::ArrayInputStream input(text.data(), static_cast<int>(text.size()));
  FirstError ignored;
  Tokenizer tokens(&input, &ignored);
  tokens.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
  std::vector<std::string> path;  // of the messages that are open
  std::string name;
  bool value_next = false, complete = false;
  int lists = 0, last_line = 0;
  while (tokens.Next()) {
    const Tokenizer::Token& token = tokens.current();
    if (token.line > error.line || (token.line == error.line && token.column >= error.column)) {
      break;
    }
    const bool never_closed = token.type == Tokenizer::TYPE_STRING &&
                              (token.text.size() < 2 || token.text.back() != token.text.front());
    if (never_closed) break;
    last_line = token.line;
    if (token.text == "{" || token.text == "<") {
      path.push_back(name);
      name.clear();
      value_next = complete = false;
    } else if (token.text == "}" || token.text == ">") {
      if (path.empty()) break;
      name = path.back();
      path.pop_back();
      complete = true;
    } else if (token.text == ":") {
      value_next = true;
    } else if (token.text == "[") {
      ++lists;
    } else if (token.text == "]") {
      --lists;
      value_next = false;
      complete = true;
    } else if (lists == 0 && value_next) {
      value_next = false;
      complete = true;
    } else if (lists == 0 && token.type == Tokenizer::TYPE_IDENTIFIER) {
      name = token.text;
      complete = false;
    }
  }
  const bool behind = absl::StartsWith(error.text, "Unknown enumeration value") ||
                      absl::StartsWith(error.text, "Invalid value for boolean");
  if (!complete || behind) path.push_back(name);
  Place place{absl::StrJoin(path, "."), behind ? last_line : error.line};
  return place;
}

absl::Status Wrong(const std::string& field, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(field.substr(0, 200), ": ", what));
}

std::string FieldsOf(const Descriptor& type) {
  std::vector<std::string> names(static_cast<size_t>(type.field_count()));
  for (int i = 0; i < type.field_count(); ++i)
    names[static_cast<size_t>(i)] = type.field(i)->name();
  return absl::StrJoin(names, ", ");
}

absl::Status PutEnum(const std::string& path, const std::string& text, const FieldDescriptor* field,
                     Message* message) {
  const auto* type = field->enum_type();
  const auto* value = type->FindValueByName(absl::AsciiStrToUpper(text));
  if (value != nullptr) {
    if (field->is_repeated()) {
      message->GetReflection()->AddEnum(message, field, value);
    } else {
      message->GetReflection()->SetEnum(message, field, value);
    }
    return absl::OkStatus();
  }
  std::vector<std::string> names;
  for (int i = 0; i < type->value_count(); ++i) {
    if (type->value(i)->number() != 0) names.push_back(type->value(i)->name());
  }
  return Wrong(path, absl::StrCat(Quoted(text), " is none of ", absl::StrJoin(names, ", ")));
}

// Sets a single value, or adds one to a repeated field.
absl::Status Put(const std::string& path, const std::string& text, const FieldDescriptor* field,
                 Message* message) {
  const char* kind = "a whole number";
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      if (field->is_repeated()) {
        message->GetReflection()->AddString(message, field, text);
      } else {
        message->GetReflection()->SetString(message, field, text);
      }
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_ENUM:
      return PutEnum(path, text, field, message);
    case FieldDescriptor::CPPTYPE_BOOL:
      kind = "true or false";
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      kind = "a number";
      break;
    default:
      break;
  }
  FirstError error;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (parser.ParseFieldValueFromString(text, field, message)) return absl::OkStatus();
  const bool range = absl::StrContains(error.text, "out of range");
  return Wrong(path, absl::StrCat(Quoted(text), " is not ", kind,
                                  range ? " within the range of the field" : ""));
}

}  // namespace

absl::StatusOr<v1::PretrainingSpec> ParseJobSpec(const std::string& text,
                                                 const std::string& source) {
  v1::PretrainingSpec spec;
  FirstError error;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (parser.ParseFromString(text, &spec)) return spec;
  const Place place = PlaceOf(error, text);
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": line ", place.line + 1, ": ", place.field.substr(0, 200),
                   place.field.empty() ? "" : ": ", error.text.substr(0, 400)));
}

absl::StatusOr<v1::PretrainingSpec> ReadJobSpec(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  file.peek();  // a folder opens, and fails here
  text << file.rdbuf();
  if (!file.is_open() || file.bad()) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path.substr(0, 200)));
  }
  return ParseJobSpec(text.str(), path);
}

absl::Status SetJobField(const std::string& assignment, v1::PretrainingSpec* spec) {
  const size_t equals = assignment.find('=');
  if (equals == 0 || equals == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(assignment), " is not FIELD=VALUE, such as optimization.steps=100"));
  }
  const std::string path(absl::StripAsciiWhitespace(assignment.substr(0, equals)));
  const std::string value(absl::StripAsciiWhitespace(assignment.substr(equals + 1)));

  v1::PretrainingSpec changed = *spec;
  Message* message = &changed;
  const FieldDescriptor* field = nullptr;
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (const std::string& part : parts) {
    if (field != nullptr) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated())
        return Wrong(path, absl::StrCat(field->name(), " has no fields"));
      message = message->GetReflection()->MutableMessage(message, field);
    }
    field = message->GetDescriptor()->FindFieldByName(part);
    if (field == nullptr) {
      return Wrong(path, absl::StrCat("there is no ", Quoted(part),
                                      "; here are: ", FieldsOf(*message->GetDescriptor())));
    }
  }
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return Wrong(path, absl::StrCat("is a group; name one of its fields: ",
                                    FieldsOf(*field->message_type())));
  }
  message->GetReflection()->ClearField(message, field);
  if (field->is_repeated()) {
    const std::vector<std::string> values = absl::StrSplit(value, ',', absl::SkipWhitespace());
    for (const std::string& one : values) {
      absl::Status status = Put(path, std::string(absl::StripAsciiWhitespace(one)), field, message);
      if (!status.ok()) return status;
    }
  } else if (!value.empty()) {
    if (absl::Status status = Put(path, value, field, message); !status.ok()) return status;
  }
  *spec = std::move(changed);
  return absl::OkStatus();
}

}  // namespace gvsl
