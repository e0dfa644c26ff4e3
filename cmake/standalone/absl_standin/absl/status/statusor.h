// Stand-in for Abseil's header of this name; see absl/status/status.h.
#ifndef GVSL_STANDIN_ABSL_STATUS_STATUSOR_H_
#define GVSL_STANDIN_ABSL_STATUS_STATUSOR_H_

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"

namespace absl {

// A value, or the Status that tells why there is none. Asking for the value of an error ends the
// program, as Abseil does where exceptions are off.
template <typename T>
class [[nodiscard]] StatusOr {
  template <typename U>
  static constexpr bool kIsValue =
      std::is_constructible_v<T, U&&> && !std::is_convertible_v<U&&, Status> &&
      !std::is_same_v<std::decay_t<U>, StatusOr> &&
      !std::is_same_v<std::decay_t<U>, std::in_place_t>;

 public:
  using value_type = T;

  StatusOr() : status_(StatusCode::kUnknown, "") {}
  StatusOr(const Status& status) : StatusOr(Status(status)) {}  // NOLINT: implicit as in Abseil
  StatusOr(Status&& status) : status_(std::move(status)) {      // NOLINT
    if (status_.ok()) Die("an OK status is no error to make a StatusOr of");
  }
  template <typename U = T, std::enable_if_t<kIsValue<U> && std::is_convertible_v<U&&, T>, int> = 0>
  StatusOr(U&& value) : value_(std::in_place, std::forward<U>(value)) {}  // NOLINT
  template <typename U = T,
            std::enable_if_t<kIsValue<U> && !std::is_convertible_v<U&&, T>, int> = 0>
  explicit StatusOr(U&& value) : value_(std::in_place, std::forward<U>(value)) {}
  template <typename... Args>
  explicit StatusOr(std::in_place_t, Args&&... args)
      : value_(std::in_place, std::forward<Args>(args)...) {}

  bool ok() const { return status_.ok(); }
  const Status& status() const& { return status_; }
  Status status() && { return std::move(status_); }

  const T& value() const& { return Get(); }
  T& value() & { return Get(); }
  T&& value() && { return std::move(Get()); }
  const T& operator*() const& { return Get(); }
  T& operator*() & { return Get(); }
  T&& operator*() && { return std::move(Get()); }
  const T* operator->() const { return &Get(); }
  T* operator->() { return &Get(); }

  template <typename U>
  T value_or(U&& other) const& {
    return ok() ? *value_ : static_cast<T>(std::forward<U>(other));
  }
  template <typename U>
  T value_or(U&& other) && {
    return ok() ? *std::move(value_) : static_cast<T>(std::forward<U>(other));
  }

 private:
  [[noreturn]] static void Die(const char* why) {
    std::fprintf(stderr, "StatusOr: %s\n", why);
    std::abort();
  }
  const T& Get() const {
    if (!ok()) Die(status_.ToString().c_str());
    return *value_;
  }
  T& Get() {
    if (!ok()) Die(status_.ToString().c_str());
    return *value_;
  }

  Status status_;
  std::optional<T> value_;
};

}  // namespace absl

#endif  // GVSL_STANDIN_ABSL_STATUS_STATUSOR_H_
