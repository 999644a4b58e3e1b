// Tensors reach every rank, and calls that cannot work are refused on all of them.
#include <torch/torch.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "all_say.h"
#include "catch.h"
#include "holdfast/runtime/ranks/group.h"

namespace {

using namespace holdfast;
using ranks::all_say;

// The text of every rank: which operation gave a wrong tensor.
std::string try_tensors(Group& group) {
  const int rank = group.rank(), count = group.world_size();
  const auto full = [&](at::IntArrayRef shape, int value, c10::ScalarType dtype) {
    return torch::full(shape, value, at::TensorOptions(group.device()).dtype(dtype));
  };
  for (const auto dtype : {torch::kFloat, torch::kDouble, torch::kHalf, torch::kBFloat16, torch::kInt, torch::kLong,
                           torch::kBool, torch::kComplexFloat}) {
    auto tensor = full({2, 3}, rank + 1, dtype).t();  // not contiguous
    group.broadcast(tensor, count - 1);
    if (!tensor.equal(full({3, 2}, count, dtype))) return "broadcast";
  }
  auto sum = full({2, 3}, rank + 1, torch::kFloat).t();
  group.all_reduce(sum);
  if (!sum.equal(full({3, 2}, count * (count + 1) / 2, torch::kFloat))) return "sum";
  auto mean = full({5}, rank, torch::kFloat);
  group.all_reduce(mean, Reduce::mean);
  if (!mean.equal(full({5}, count - 1, torch::kFloat) / 2)) return "mean";
  auto largest = full({5}, rank, torch::kLong);
  group.all_reduce(largest, Reduce::max);
  if (!largest.equal(full({5}, count - 1, torch::kLong))) return "max";
  const auto all = group.all_gather(full({rank, 2}, rank, torch::kInt));
  if (static_cast<int>(all.size()) != count) return "number of parts";
  for (int one = 0; one < count; ++one) {
    if (!all[static_cast<std::size_t>(one)].equal(full({one, 2}, one, torch::kInt))) return "all_gather";
  }
  return "right";
}

}  // namespace

TEST_CASE("tensors_are_broadcast_reduced_and_gathered_with_uneven_lengths") {
  for (const int count : {1, 3}) all_say(count, "right", try_tensors);
}

TEST_CASE("tensors_on_gpus_are_broadcast_reduced_and_gathered_with_uneven_lengths", "[gpu]") {
  if (ranks::are_on_two_gpus()) all_say(2, "right", try_tensors, c10::kCUDA);
}

TEST_CASE("invalid_calls_are_refused_with_the_reason_and_the_group_stays_usable") {
  struct Case {
    std::function<void(Group&)> act;
    const char* words;
  };
  const auto sum = [](torch::Tensor tensor) { return [tensor](Group& group) mutable { group.all_reduce(tensor); }; };
  const std::vector<Case> cases = {
      {sum(torch::ones({3}, torch::kShort)), "a cpu Short tensor [3]"},
      {sum(torch::ones({3}).to(torch::kFloat8_e4m3fn)), "Float8_e4m3fn tensor [3]"},
      {sum(torch::eye(3).to_sparse()), "takes dense tensors; to_dense() makes one"},
      {sum(torch::ones({1}).expand({4})), "share memory"},
      {sum(torch::Tensor()), "undefined tensor"},
      {[](Group& group) {
         auto tensor = torch::ones({3});
         group.broadcast(tensor, 7);
       },
       "names rank 7, but the ranks are 0 to 1"},
      // Refused before anything is sent to the others, so the error also occurs when one rank alone makes the call.
      {[](Group& group) {
         if (group.is_main()) (void)group.all_reduce(3, holdfast::Reduce::mean);
         throw std::runtime_error("the mean of integers");
       },
       "the mean of integers"},
      {[](Group& group) { (void)group.broadcast(3, -1); }, "names rank -1, but the ranks are 0 to 1"},
      {[](Group& group) { (void)group.gather(3, 2); }, "names rank 2, but the ranks are 0 to 1"},
      {[](Group& group) { (void)group.gather(torch::ones({3}), 9); }, "names rank 9, but the ranks are 0 to 1"},
  };
  all_say(2, "right", [&](Group& group) -> std::string {
    const auto begin = ranks::Clock::now();
    for (const Case& one : cases) {
      std::string said = "nothing";
      try {
        one.act(group);
      } catch (const std::exception& error) {
        said = error.what();
      }
      if (said.find(one.words) == std::string::npos) return said + " instead of " + one.words;
      group.barrier();
    }
    auto conjugate = torch::full({3}, c10::complex<float>(static_cast<float>(group.rank()), 2)).conj();
    group.broadcast(conjugate, 1);
    if (!conjugate.equal(torch::full({3}, c10::complex<float>(1, -2)))) return "a conjugate arrived with other values";
    return ranks::Clock::now() - begin < std::chrono::seconds(2) ? "right" : "late";
  });
}
