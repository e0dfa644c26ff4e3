// Stand-in for the part of GoogleTest that the tests of imaging/ and model/ use, for builds with
// GVSL_MODEL_ONLY where GoogleTest is absent (docs/adr/0002-model-builds-alone.md). Macros mean
// what GoogleTest's of the same name mean. Link gtest_main.cc for main().
//
// The program takes --gtest_filter=PATTERN[:PATTERN...][-PATTERN[:PATTERN...]] and
// --gtest_list_tests, tells every skipped test with its reason, and exits with 1 if any test
// failed.
#ifndef GVSL_STANDIN_GTEST_GTEST_H_
#define GVSL_STANDIN_GTEST_GTEST_H_

#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace testing {

// Text gathered by << behind an assertion.
class Message {
 public:
  template <typename T>
  Message& operator<<(const T& value) {
    text_ << value;
    return *this;
  }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
};

namespace internal {

template <typename T, typename = void>
struct IsStreamable : std::false_type {};
template <typename T>
struct IsStreamable<
    T, std::void_t<decltype(std::declval<std::ostream&>() << std::declval<const T&>())>>
    : std::true_type {};
template <typename T, typename = void>
struct IsRange : std::false_type {};
template <typename T>
struct IsRange<T, std::void_t<decltype(std::begin(std::declval<const T&>()))>> : std::true_type {};

}  // namespace internal

template <typename T>
std::string PrintToString(const T& value) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  if constexpr (std::is_same_v<T, bool>) {
    out << (value ? "true" : "false");
  } else if constexpr (std::is_same_v<T, std::nullptr_t>) {
    out << "nullptr";
  } else if constexpr (std::is_integral_v<T> && sizeof(T) == 1) {
    out << static_cast<int>(value);
  } else if constexpr (std::is_convertible_v<T, std::string>) {
    out << '"' << std::string(value) << '"';
  } else if constexpr (internal::IsStreamable<T>::value) {
    out << value;
  } else if constexpr (std::is_enum_v<T>) {
    out << static_cast<long long>(value);
  } else if constexpr (internal::IsRange<T>::value) {
    const char* separator = "{ ";
    for (const auto& element : value) {
      out << separator << PrintToString(element);
      separator = ", ";
    }
    out << " }";
  } else {
    out << sizeof(T) << "-byte object";
  }
  return out.str();
}

// A test's own class; one object a test.
class Test {
 public:
  virtual ~Test() = default;
  void Run();  // SetUp, TestBody unless SetUp failed or skipped, TearDown

  static void SetUpTestSuite() {}
  static void TearDownTestSuite() {}
  static bool HasFatalFailure();
  static bool HasNonfatalFailure();
  static bool HasFailure() { return HasFatalFailure() || HasNonfatalFailure(); }
  static bool IsSkipped();

 protected:
  virtual void SetUp() {}
  virtual void TearDown() {}
  virtual void TestBody() = 0;
};

class TestInfo {
 public:
  TestInfo(std::string suite, std::string name)
      : suite_(std::move(suite)), name_(std::move(name)) {}
  const char* test_suite_name() const { return suite_.c_str(); }
  const char* name() const { return name_.c_str(); }

 private:
  std::string suite_, name_;
};

class UnitTest {
 public:
  static UnitTest* GetInstance();
  // Of the running test; null between tests.
  const TestInfo* current_test_info() const;
};

// The folder for temporary files, with a slash at its end.
std::string TempDir();

namespace internal {

struct TestCase {
  TestInfo info;
  std::function<Test*()> make;
  void (*set_up_suite)();
  void (*tear_down_suite)();
};
// Returns true, so that a static variable can register a test.
bool Register(TestCase test);
// Runs `expand` before the first test; it registers tests whose number is not known earlier.
void RegisterLater(std::function<void()> expand);
int RunAll(int argc, char** argv);

enum class Kind { kNonfatal, kFatal, kSkip };

// Takes the message that an assertion was given: `Report(...) = Message() << ...`.
class Report {
 public:
  Report(Kind kind, const char* file, int line, std::string what)
      : kind_(kind), file_(file), line_(line), what_(std::move(what)) {}
  void operator=(const Message& message) const;

 private:
  Kind kind_;
  const char* file_;
  int line_;
  std::string what_;
};

// SCOPED_TRACE: a line added to every failure within its scope.
class Trace {
 public:
  Trace(const char* file, int line, const std::string& text);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
};

// The outcome of a check: false with the reason why.
struct Outcome {
  bool passed;
  std::string why;
  explicit operator bool() const { return passed; }
};

template <typename T>
Outcome CheckBool(const T& value, bool expected, const char* text) {
  if (static_cast<bool>(value) == expected) return {true, ""};
  return {false,
          std::string("Value of: ") + text + "\n  expected: " + (expected ? "true" : "false")};
}

template <typename A, typename B, typename Compare>
Outcome CheckPair(const A& a, const B& b, const char* text_a, const char* text_b, const char* sign,
                  Compare compare) {
  if (compare(a, b)) return {true, ""};
  return {false, std::string("Expected: (") + text_a + ") " + sign + " (" + text_b +
                     ")\n  actual: " + PrintToString(a) + " vs " + PrintToString(b)};
}

inline Outcome CheckNear(double a, double b, double bound, const char* text_a, const char* text_b) {
  if (std::abs(a - b) <= bound || a == b) return {true, ""};  // NaN is near nothing
  return {false, std::string(text_a) + " and " + text_b + " differ by " +
                     PrintToString(std::abs(a - b)) + ", more than " + PrintToString(bound) + ": " +
                     PrintToString(a) + " vs " + PrintToString(b)};
}

// Equal within four units in the last place.
template <typename T>
Outcome CheckUlps(T a, T b, const char* text_a, const char* text_b) {
  T low = a, high = a;
  for (int i = 0; i < 4; ++i) {
    low = std::nextafter(low, -std::numeric_limits<T>::infinity());
    high = std::nextafter(high, std::numeric_limits<T>::infinity());
  }
  if (a == b || (low <= b && b <= high)) return {true, ""};
  return CheckPair(a, b, text_a, text_b, "==", [](T, T) { return false; });
}

inline Outcome CheckCString(const char* a, const char* b, const char* text_a, const char* text_b) {
  const bool equal = a == b || (a != nullptr && b != nullptr && std::strcmp(a, b) == 0);
  return CheckPair(std::string(a ? a : "(null)"), std::string(b ? b : "(null)"), text_a, text_b,
                   "==", [equal](const auto&, const auto&) { return equal; });
}

}  // namespace internal
}  // namespace testing

// The first switch keeps an `else` after the macro from binding to its `if`.
#define GVSL_TEST_CHECK_(kind, leave, outcome)                                        \
  switch (0)                                                                          \
  case 0:                                                                             \
  default:                                                                            \
    if (const ::testing::internal::Outcome gvsl_outcome = (outcome))                  \
      ;                                                                               \
    else                                                                              \
      leave ::testing::internal::Report(kind, __FILE__, __LINE__, gvsl_outcome.why) = \
          ::testing::Message()
#define GVSL_EXPECT_(outcome) GVSL_TEST_CHECK_(::testing::internal::Kind::kNonfatal, , outcome)
#define GVSL_ASSERT_(outcome) GVSL_TEST_CHECK_(::testing::internal::Kind::kFatal, return, outcome)

#define GVSL_BOOL_(value, expected) ::testing::internal::CheckBool(value, expected, #value)
// The comparisons are the standard library's, so that none warns of mixed signs in the test's own
// code.
#define GVSL_PAIR_(a, b, sign, compare) \
  ::testing::internal::CheckPair(a, b, #a, #b, #sign, compare{})

#define EXPECT_TRUE(value) GVSL_EXPECT_(GVSL_BOOL_(value, true))
#define EXPECT_FALSE(value) GVSL_EXPECT_(GVSL_BOOL_(value, false))
#define EXPECT_EQ(a, b) GVSL_EXPECT_(GVSL_PAIR_(a, b, ==, std::equal_to<>))
#define EXPECT_NE(a, b) GVSL_EXPECT_(GVSL_PAIR_(a, b, !=, std::not_equal_to<>))
#define EXPECT_LT(a, b) GVSL_EXPECT_(GVSL_PAIR_(a, b, <, std::less<>))
#define EXPECT_LE(a, b) GVSL_EXPECT_(GVSL_PAIR_(a, b, <=, std::less_equal<>))
#define EXPECT_GT(a, b) GVSL_EXPECT_(GVSL_PAIR_(a, b, >, std::greater<>))
#define EXPECT_GE(a, b) GVSL_EXPECT_(GVSL_PAIR_(a, b, >=, std::greater_equal<>))
#define EXPECT_THROW(statement, exception) \
  EXPECT_TRUE([&] {                        \
    try {                                  \
      static_cast<void>(statement);        \
    } catch (const exception&) {           \
      return true;                         \
    }                                      \
    return false;                          \
  }())
#define EXPECT_NEAR(a, b, bound) GVSL_EXPECT_(::testing::internal::CheckNear(a, b, bound, #a, #b))
#define EXPECT_FLOAT_EQ(a, b) GVSL_EXPECT_(::testing::internal::CheckUlps<float>(a, b, #a, #b))
#define EXPECT_DOUBLE_EQ(a, b) GVSL_EXPECT_(::testing::internal::CheckUlps<double>(a, b, #a, #b))
#define EXPECT_STREQ(a, b) GVSL_EXPECT_(::testing::internal::CheckCString(a, b, #a, #b))

#define ASSERT_TRUE(value) GVSL_ASSERT_(GVSL_BOOL_(value, true))
#define ASSERT_FALSE(value) GVSL_ASSERT_(GVSL_BOOL_(value, false))
#define ASSERT_EQ(a, b) GVSL_ASSERT_(GVSL_PAIR_(a, b, ==, std::equal_to<>))
#define ASSERT_NE(a, b) GVSL_ASSERT_(GVSL_PAIR_(a, b, !=, std::not_equal_to<>))
#define ASSERT_LT(a, b) GVSL_ASSERT_(GVSL_PAIR_(a, b, <, std::less<>))
#define ASSERT_LE(a, b) GVSL_ASSERT_(GVSL_PAIR_(a, b, <=, std::less_equal<>))
#define ASSERT_GT(a, b) GVSL_ASSERT_(GVSL_PAIR_(a, b, >, std::greater<>))
#define ASSERT_GE(a, b) GVSL_ASSERT_(GVSL_PAIR_(a, b, >=, std::greater_equal<>))
#define ASSERT_NEAR(a, b, bound) GVSL_ASSERT_(::testing::internal::CheckNear(a, b, bound, #a, #b))
#define ASSERT_FLOAT_EQ(a, b) GVSL_ASSERT_(::testing::internal::CheckUlps<float>(a, b, #a, #b))
#define ASSERT_DOUBLE_EQ(a, b) GVSL_ASSERT_(::testing::internal::CheckUlps<double>(a, b, #a, #b))
#define ASSERT_STREQ(a, b) GVSL_ASSERT_(::testing::internal::CheckCString(a, b, #a, #b))

#define GVSL_REPORT_(kind, what) \
  ::testing::internal::Report(kind, __FILE__, __LINE__, what) = ::testing::Message()
#define ADD_FAILURE() GVSL_REPORT_(::testing::internal::Kind::kNonfatal, "Failed")
#define FAIL() return GVSL_REPORT_(::testing::internal::Kind::kFatal, "Failed")
#define GTEST_SKIP() return GVSL_REPORT_(::testing::internal::Kind::kSkip, "Skipped")
#define SUCCEED() ::testing::Message()

#define GVSL_JOIN_(a, b) GVSL_JOIN_AGAIN_(a, b)
#define GVSL_JOIN_AGAIN_(a, b) a##b
#define SCOPED_TRACE(note)                                            \
  const ::testing::internal::Trace GVSL_JOIN_(gvsl_trace_, __LINE__)( \
      __FILE__, __LINE__, (::testing::Message() << note).text())

#define GVSL_TEST_(suite, test, base)                                            \
  class suite##_##test##_Test : public base {                                    \
    void TestBody() override;                                                    \
    static const bool registered_;                                               \
  };                                                                             \
  const bool suite##_##test##_Test::registered_ = ::testing::internal::Register( \
      {::testing::TestInfo(#suite, #test),                                       \
       []() -> ::testing::Test* { return new suite##_##test##_Test; },           \
       [] { suite##_##test##_Test::SetUpTestSuite(); },                          \
       [] { suite##_##test##_Test::TearDownTestSuite(); }});                     \
  void suite##_##test##_Test::TestBody()
#define TEST(suite, test) GVSL_TEST_(suite, test, ::testing::Test)
#define TEST_F(fixture, test) GVSL_TEST_(fixture, test, fixture)

#include "gtest/param_tests.h"

#endif  // GVSL_STANDIN_GTEST_GTEST_H_
