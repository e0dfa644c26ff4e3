// TEST_P of the GoogleTest stand-in; included by gtest.h.
#ifndef GVSL_STANDIN_GTEST_PARAM_TESTS_H_
#define GVSL_STANDIN_GTEST_PARAM_TESTS_H_

#include <deque>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace testing {

template <typename T>
class TestWithParam : public Test {
 public:
  using ParamType = T;
  static const T& GetParam() { return *param_; }
  static void SetParam(const T* param) { param_ = param; }

 private:
  inline static const T* param_ = nullptr;
};

namespace internal {

template <typename... Ts>
struct ValueList {
  std::tuple<Ts...> values;
  template <typename T>
  operator std::deque<T>() const {
    return std::apply([](const Ts&... each) { return std::deque<T>{static_cast<T>(each)...}; },
                      values);
  }
};

// The tests of one fixture and the values they run with. Tests and values register in any order, so
// they meet only when the program runs.
template <typename Fixture>
class ParamSuite {
 public:
  using Param = typename Fixture::ParamType;

  static ParamSuite& Get() {
    static ParamSuite* const suite = new ParamSuite;
    return *suite;
  }
  bool AddTest(const char* suite, const char* name, Test* (*make)()) {
    tests_.push_back({suite, name, make});
    return true;
  }
  bool AddValues(const char* prefix, std::deque<Param> values) {
    instances_.push_back({prefix, std::move(values)});
    return true;
  }

 private:
  struct Body {
    std::string suite, name;
    Test* (*make)();
  };
  struct Instance {
    std::string prefix;
    std::deque<Param> values;
  };

  ParamSuite() {
    RegisterLater([this] { Expand(); });
  }
  void Expand() const {
    for (const Instance& instance : instances_) {
      for (const Body& body : tests_) {
        for (size_t i = 0; i < instance.values.size(); ++i) {
          const Param* value = &instance.values[i];
          Register(
              {TestInfo(instance.prefix + "/" + body.suite, body.name + "/" + std::to_string(i)),
               [value, make = body.make] {
                 Fixture::SetParam(value);
                 return make();
               },
               [] { Fixture::SetUpTestSuite(); }, [] { Fixture::TearDownTestSuite(); }});
        }
      }
    }
  }

  std::deque<Body> tests_;
  std::deque<Instance> instances_;
};

}  // namespace internal

template <typename... Ts>
internal::ValueList<Ts...> Values(Ts... values) {
  return {std::tuple<Ts...>(std::move(values)...)};
}

template <typename Range>
auto ValuesIn(const Range& range) {
  using T = std::decay_t<decltype(*std::begin(range))>;
  return std::deque<T>(std::begin(range), std::end(range));
}

}  // namespace testing

#define TEST_P(fixture, test)                                                                 \
  class fixture##_##test##_Test : public fixture {                                            \
    void TestBody() override;                                                                 \
    static const bool registered_;                                                            \
  };                                                                                          \
  const bool fixture##_##test##_Test::registered_ =                                           \
      ::testing::internal::ParamSuite<fixture>::Get().AddTest(                                \
          #fixture, #test, []() -> ::testing::Test* { return new fixture##_##test##_Test; }); \
  void fixture##_##test##_Test::TestBody()

#define INSTANTIATE_TEST_SUITE_P(prefix, fixture, ...)        \
  [[maybe_unused]] const bool gvsl_values_##prefix##fixture = \
      ::testing::internal::ParamSuite<fixture>::Get().AddValues(#prefix, __VA_ARGS__)

#endif  // GVSL_STANDIN_GTEST_PARAM_TESTS_H_
