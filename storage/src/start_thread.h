// Starts a thread if the system allows another one.
#pragma once

#include <new>
#include <system_error>
#include <thread>

namespace holdfast::storage {

/// Not joinable if the system allows no more threads: the caller then does the work itself.
template <class Work>
std::thread start_thread(const Work& work) {
  try {
    return std::thread(work);
  } catch (const std::system_error&) {
    return {};
  } catch (const std::bad_alloc&) {
    return {};
  }
}

}  // namespace holdfast::storage
