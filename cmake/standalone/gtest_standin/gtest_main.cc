// The runner of the GoogleTest stand-in; see gtest/gtest.h.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "gtest/gtest.h"

namespace testing {
namespace {

// What happened in the running test. Assertions may come from several threads.
struct State {
  std::mutex mutex;
  bool fatal = false;
  bool nonfatal = false;
  bool skipped = false;
  const TestInfo* current = nullptr;
};
State& TheState() {
  static State state;
  return state;
}

std::vector<internal::TestCase>& Tests() {
  static std::vector<internal::TestCase> tests;
  return tests;
}

std::vector<std::function<void()>>& Expanders() {
  static std::vector<std::function<void()>> expanders;
  return expanders;
}

std::vector<std::string>& Traces() {
  thread_local std::vector<std::string> traces;
  return traces;
}

// `*` matches any text, `?` any character.
bool Matches(const char* pattern, const char* text) {
  if (*pattern == '*') return Matches(pattern + 1, text) || (*text && Matches(pattern, text + 1));
  if (*pattern == '\0') return *text == '\0';
  return *text && (*pattern == '?' || *pattern == *text) && Matches(pattern + 1, text + 1);
}

bool MatchesAny(const std::string& patterns, const std::string& name) {
  std::istringstream list(patterns);
  for (std::string pattern; std::getline(list, pattern, ':');) {
    if (Matches(pattern.c_str(), name.c_str())) return true;
  }
  return false;
}

// Patterns before the first '-' choose tests, those after it leave some out.
bool Chosen(const std::string& filter, const std::string& name) {
  const size_t minus = filter.find('-');
  const std::string wanted = filter.substr(0, minus);
  if (!wanted.empty() && !MatchesAny(wanted, name)) return false;
  return minus == std::string::npos || !MatchesAny(filter.substr(minus + 1), name);
}

std::string NameOf(const internal::TestCase& test) {
  return std::string(test.info.test_suite_name()) + "." + test.info.name();
}

enum class Result { kPassed, kFailed, kSkipped };

Result RunOne(const internal::TestCase& test) {
  State& state = TheState();
  state.fatal = state.nonfatal = state.skipped = false;
  state.current = &test.info;
  std::printf("[ RUN      ] %s\n", NameOf(test).c_str());
  std::fflush(stdout);
  const auto start = std::chrono::steady_clock::now();
  try {
    std::unique_ptr<Test>(test.make())->Run();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "exception: " << error.what();
  } catch (...) {
    ADD_FAILURE() << "exception of an unknown type";
  }
  state.current = nullptr;
  const Result result = state.fatal || state.nonfatal ? Result::kFailed
                        : state.skipped               ? Result::kSkipped
                                                      : Result::kPassed;
  const char* label = result == Result::kFailed    ? "[  FAILED  ]"
                      : result == Result::kSkipped ? "[  SKIPPED ]"
                                                   : "[       OK ]";
  const auto elapsed = std::chrono::steady_clock::now() - start;
  std::printf("%s %s (%lld ms)\n", label, NameOf(test).c_str(),
              static_cast<long long>(
                  std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count()));
  std::fflush(stdout);
  return result;
}

}  // namespace

void Test::Run() {
  SetUp();
  if (!HasFatalFailure() && !IsSkipped()) TestBody();
  TearDown();
}

bool Test::HasFatalFailure() { return TheState().fatal; }
bool Test::HasNonfatalFailure() { return TheState().nonfatal; }
bool Test::IsSkipped() { return TheState().skipped; }

UnitTest* UnitTest::GetInstance() {
  static UnitTest instance;
  return &instance;
}
const TestInfo* UnitTest::current_test_info() const { return TheState().current; }

std::string TempDir() {
  const char* folder = std::getenv("TMPDIR");
  std::string path = folder != nullptr && *folder != '\0' ? folder : "/tmp";
  if (path.back() != '/') path += '/';
  return path;
}

namespace internal {

bool Register(TestCase test) {
  Tests().push_back(std::move(test));
  return true;
}

void RegisterLater(std::function<void()> expand) { Expanders().push_back(std::move(expand)); }

void Report::operator=(const Message& message) const {
  State& state = TheState();
  const std::lock_guard<std::mutex> lock(state.mutex);
  (kind_ == Kind::kSkip    ? state.skipped
   : kind_ == Kind::kFatal ? state.fatal
                           : state.nonfatal) = true;
  std::printf("%s:%d: %s%s\n", file_, line_, kind_ == Kind::kSkip ? "" : "Failure\n",
              what_.c_str());
  if (const std::string text = message.text(); !text.empty()) std::printf("%s\n", text.c_str());
  for (const std::string& trace : Traces()) std::printf("  in %s\n", trace.c_str());
  std::fflush(stdout);
}

Trace::Trace(const char* file, int line, const std::string& text) {
  Traces().push_back(std::string(file) + ":" + std::to_string(line) + ": " + text);
}
Trace::~Trace() { Traces().pop_back(); }

int RunAll(int argc, char** argv) {
  const std::string filter_flag = "--gtest_filter=";
  std::string filter;
  bool list = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.compare(0, filter_flag.size(), filter_flag) == 0) {
      filter = argument.substr(filter_flag.size());
    } else if (argument == "--gtest_list_tests") {
      list = true;
    } else {
      std::fprintf(stderr,
                   "unknown argument %s; known: --gtest_filter=PATTERNS, --gtest_list_tests\n",
                   argument.c_str());
      return 2;
    }
  }
  for (const std::function<void()>& expand : Expanders()) expand();
  std::vector<const TestCase*> chosen;
  for (const TestCase& test : Tests()) {
    if (Chosen(filter, NameOf(test))) chosen.push_back(&test);
  }
  // Tests of one suite run together, in the order in which they were written.
  std::vector<std::string> failed, skipped;
  std::vector<bool> done(chosen.size(), false);
  for (size_t first = 0; first < chosen.size(); ++first) {
    if (done[first]) continue;
    if (!list) chosen[first]->set_up_suite();
    for (size_t i = first; i < chosen.size(); ++i) {
      if (std::strcmp(chosen[i]->info.test_suite_name(), chosen[first]->info.test_suite_name()) !=
          0) {
        continue;
      }
      done[i] = true;
      if (list) {
        std::printf("%s\n", NameOf(*chosen[i]).c_str());
        continue;
      }
      const Result result = RunOne(*chosen[i]);
      if (result == Result::kFailed) failed.push_back(NameOf(*chosen[i]));
      if (result == Result::kSkipped) skipped.push_back(NameOf(*chosen[i]));
    }
    if (!list) chosen[first]->tear_down_suite();
  }
  if (list) return 0;
  std::printf("[==========] %zu tests ran.\n[  PASSED  ] %zu tests.\n", chosen.size(),
              chosen.size() - failed.size() - skipped.size());
  for (const std::string& name : skipped) std::printf("[  SKIPPED ] %s\n", name.c_str());
  for (const std::string& name : failed) std::printf("[  FAILED  ] %s\n", name.c_str());
  return failed.empty() ? 0 : 1;
}

}  // namespace internal
}  // namespace testing

int main(int argc, char** argv) { return testing::internal::RunAll(argc, argv); }
