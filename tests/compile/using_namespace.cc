// compiles
#include "program.h"

using namespace holdfast;

// Names that only the library needs must not clash with a program's own.
constexpr int never = 0;
constexpr int kEndless = 0;
constexpr bool is_tuple = false;
using Duration = double;
using Lookup = std::vector<int>;
using BeginLoop = int;
enum class Decision { go_on, stop };
struct Loop {
  Lookup lookup;
  Duration duration = 0;
  Decision decision = Decision::go_on;
};
struct RunningLoop {};
struct StepRange {};
struct EpochRange {};
struct CountRange {};
struct OwnEpoch {};
struct BatchCounter {};
struct LoaderBase {};
struct GroupOptions {};
struct GroupControl {};
struct OptionInForce {};
struct OptionsRead {};
struct ColumnWriter {};
struct ColumnReader {};
struct GrowingBytes {};
struct ObjectReference {};
struct ObjectAccess {};
struct ValueAccess {};
struct WholeObject {};
struct StatePart {};
struct PartsWriter {};
struct ElementForm {};
struct TrackedState {};
template <class T>
struct JsonValue {
  T value;
};
template <class T>
concept IsNumber = std::is_arithmetic_v<T>;
template <class T>
concept PointsTo = std::is_pointer_v<T>;
template <class T>
concept IsContainer = requires(T& x) {
  x.begin();
};

template <IsNumber T>
T value_of(JsonValue<T> json) {
  return json.value;
}
template <PointsTo T>
auto pointee(T pointer) {
  return *pointer;
}
template <IsContainer T>
std::size_t window_length(const T& all) {
  return all.size();
}

int main(int argc, char** argv) {
  Session session = Session::start(argc, argv);
  Loop loop{{1, 2}};
  const BeginLoop begin = never + kEndless + value_of(JsonValue<int>{3}) + pointee(&never);
  (void)window_length(loop.lookup);
  (void)std::tuple<RunningLoop, StepRange, EpochRange, CountRange, OwnEpoch, BatchCounter, LoaderBase>();
  (void)std::tuple<GroupOptions, GroupControl, OptionInForce, OptionsRead, TrackedState>();
  (void)std::tuple<ColumnWriter, ColumnReader, GrowingBytes, ObjectReference, ObjectAccess, ValueAccess>();
  (void)std::tuple<WholeObject, StatePart, PartsWriter, ElementForm>();

  Loader loader(Samples().map(torch::data::transforms::Stack<>()), {.batch_size = 4});
  for (auto& batch : session.steps(loader, {.epochs = 1})) {
    if (is_tuple || begin < 0) loop.decision = Decision::stop;
    loop.duration += batch.data.size(0);
  }
  return loop.decision == Decision::stop ? 1 : session.finish();
}
