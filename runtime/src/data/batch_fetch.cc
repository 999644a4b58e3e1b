#include "data/batch_fetch.h"

#include <c10/core/DeviceGuard.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <exception>
#include <string>

#include "data/sample_scope.h"
#include "holdfast/runtime/error.h"

namespace holdfast {
namespace {

using storage::StatusCode;

struct Failure {
  StatusCode code = StatusCode::unreadable;
  std::string text;
};

// Call inside a catch block.
Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const c10::Error& error) {
    return {StatusCode::unreadable, error.what_without_backtrace()};
  } catch (const std::exception& error) {
    return {StatusCode::unreadable, error.what()};
  } catch (...) {
    return {StatusCode::unreadable, "an exception that is not a std::exception"};
  }
}

}  // namespace

std::shared_ptr<void> BatchFetch::operator()() const {
  const auto batch = read();
  if (pin && batch) {
    const c10::DeviceGuard on_device(*device);  // otherwise a worker would create a context on the first GPU
    pin(batch.get());
  }
  return batch;
}

std::shared_ptr<void> BatchFetch::read() const {
  std::vector<std::size_t> indices;
  indices.reserve(end - begin);
  for (auto position = begin; position < end; ++position) {
    indices.push_back(own_order ? (*own_order)[position] : order[position]);
  }
  SampleScope scope(seed, epoch);
  Failure failure;
  try {
    return fetch(indices);
  } catch (...) {
    failure = current_failure();
  }
  // get_batch does not tell which sample failed, so each sample is read alone: the faulty one fails again.
  for (std::size_t i = 0; i < indices.size(); ++i) {
    try {
      fetch({indices[i]});
    } catch (...) {
      failure = current_failure();
      throw Error(failure.code, fmt::format("sample {} of the dataset could not be read (epoch {}, position {}): {}",
                                            indices[i], epoch, begin + i, failure.text));
    }
  }
  throw Error(failure.code,
              fmt::format("the batch of samples {} could not be read, although each of these samples can be read alone "
                          "(epoch {}, position {}): {}",
                          fmt::join(indices, ", "), epoch, begin, failure.text));
}

}  // namespace holdfast
