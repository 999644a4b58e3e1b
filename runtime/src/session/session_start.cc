#include <ATen/Parallel.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/filesystem/operations.hpp>
#include <cstdlib>

#include "data/dataset_change.h"
#include "data/session_seed.h"
#include "device/reproducibility.h"
#include "holdfast/runtime/error.h"
#include "holdfast/runtime/platform/machine_age.h"
#include "holdfast/runtime/platform/machine_limits.h"
#include "holdfast/storage/stores/file/file_operations.h"
#include "holdfast/storage/text/plural.h"
#include "ranks/group_control.h"
#include "ranks/rendezvous.h"
#include "session/earlier_sessions.h"
#include "session/session_impl.h"

namespace holdfast {

using storage::StatusCode;

namespace {

std::chrono::milliseconds milliseconds(const OptionValue<detail::Duration>& duration) {
  return std::chrono::ceil<std::chrono::milliseconds>(*duration);
}

// Paths count from the working directory at start(), which may differ when the run is opened.
std::string absolute(const std::string& path) {
  boost::system::error_code gone;
  const storage::Path given(path);
  storage::Path whole = given.is_relative() ? boost::filesystem::current_path(gone) / given : given;
  whole = whole.lexically_normal();
  return (whole.filename_is_dot() ? whole.parent_path() : whole).string();
}

std::string stopped_before_all_met(int rank) {
  return fmt::format(
      "rank {} received a stop request before all ranks had met, so nothing has started; run the same command again "
      "(exit code {})",
      rank, static_cast<int>(kRunAgain));
}

}  // namespace

std::atomic<bool> Session::Impl::Sole::alive{false};
std::atomic<Session::Impl*> Session::Impl::current{nullptr};

Session::Impl::Sole::Sole() {
  if (!alive.exchange(true)) return;
  throw Error(StatusCode::invalid,
              "Session::start was called while another session of this process is alive: only one is allowed at a "
              "time, so end the scope of the first one before");
}

Session::Impl::Impl(detail::OptionsRead given, RankEnvironment ranks)
    : options(std::move(given.values)),
      around(std::move(given.around)),
      platform(std::move(given.platform)),
      profile(std::move(given.profile)),
      on_non_finite(*options.on_nonfinite),
      every([&] {
        SaveEvery when = *options.every;
        // A rollback must not skip more steps than this.
        if (const auto most = on_non_finite.steps; most > 0 && (when.steps == 0 || when.steps > most))
          when.steps = most;
        return when;
      }()),
      agreement(/*answers=*/ranks.rank == 0),
      console(stderr, ranks.rank == 0 ? Console::Style::automatic : Console::Style::silent),
      device([&] {
        if (options.deterministic) make_deterministic();
        if (!ranks.local_known) {
          const NothingToSave scope(stopped_before_all_met(ranks.rank), kRunAgain);
          find_place_on_host(ranks, {milliseconds(options.join_within), milliseconds(options.say_waiting),
                                     [this](const std::string& line) { console.say_of_rank(line); }});
        }
        return choose_device(*options.device, ranks.local_rank, ranks.local_world_size);
      }()),
      group([&] {
        // The other ranks may need minutes to arrive, and a stop request must not wait that long.
        const NothingToSave scope(stopped_before_all_met(ranks.rank), kRunAgain);
        return Group(ranks, device.device,
                     {.join_within = milliseconds(options.join_within),
                      .say_waiting_after = milliseconds(options.say_waiting),
                      .silence = milliseconds(options.silence),
                      .say = [this](const std::string& line) { console.say_of_rank(line); }});
      }()),
      tracked(RankPlace{ranks.rank, ranks.world_size, device.device}) {
  options.dir = absolute(options.dir);
  for (std::string& folder : options.search) folder = absolute(folder);
  for (std::size_t i = 0; i < options.mirror.size(); ++i) {
    std::string& folder = options.mirror[i];
    folder = absolute(folder);
    const auto before = options.mirror.begin() + static_cast<std::ptrdiff_t>(i);
    if (std::find(options.mirror.begin(), before, folder) != before) {
      throw Error(StatusCode::invalid, fmt::format("mirror {} is named twice", folder));
    }
    if (folder != options.dir) continue;
    throw Error(StatusCode::invalid, fmt::format("mirror {} is the folder of the runs itself: name another folder with "
                                                 "--holdfast.mirror, or none",
                                                 folder));
  }
  require_same_options(given.in_force);
  if (ranks.world_size > 1) {
    if (auto shared = gpu_of_two(group.all_gather(device.gpu))) throw Error(StatusCode::invalid, *shared);
  }
  if (ranks.world_size > 1) {
    before_death.emplace([this](const std::string& why) {
      detail::GroupControl(group).fail(fmt::format("rank {} failed: {}", group.rank(), why), /*leaves=*/true);
    });
  }
  time =
      time_left(profile, machine_age(around), *options.time_limit, around,
                std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()));
  if (options.notices != "none" && ranks.local_rank == 0) {
    const std::string cloud = options.notices == "auto" ? platform.cloud.name : options.notices;
    if (auto source = notice_source(cloud, around)) notices = std::make_unique<NoticeWatch>(cloud, std::move(source));
  }
  if (options.threads > 0) {
    at::set_num_threads(options.threads);
  } else if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    // A container may grant less time than the machine has processors, which LibTorch counts. The ranks of a host share
    // what there is.
    const Machine machine = this_machine();
    const auto granted = threads_to_set(machine, limits_of(machine, around));
    // A launcher may have bound each rank to processors of its own (srun, mpirun).
    const bool is_bound = machine.cpus * ranks.local_world_size <= ::sysconf(_SC_NPROCESSORS_ONLN);
    const int sharers = is_bound ? 1 : ranks.local_world_size;
    if (granted || ranks.local_world_size > 1) {
      at::set_num_threads(std::max(1, granted.value_or(machine.cpus) / sharers));
    }
  }
  seed_generators();
  set_session_seed(options.seed);
  allow_dataset_change(options.allow_dataset_change);
  tracked.track(Progress::kName, progress);
  [[maybe_unused]] static const int registered = std::atexit(report_exit);
  current = this;
}

void Session::Impl::require_same_options(const std::vector<detail::OptionInForce>& in_force) {
  if (group.world_size() == 1) return;
  std::vector<std::array<std::string, 3>> mine;  // name, value, origin
  for (const detail::OptionInForce& option : in_force) {
    // A configuration file's content must be alike on all hosts, not its path.
    if (option.name != "config") mine.push_back({option.name, option.value, option.origin});
  }
  std::vector<std::vector<std::array<std::string, 3>>> all;
  for (const auto& one : group.compare("Session::start", "", mine)) all.push_back(one);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const auto& [name, expected, origin] = all[0][i];
      const auto& [here_name, here, here_origin] = all[rank].at(i);
      if (here_name == name && here == expected) continue;
      throw Error(StatusCode::invalid, fmt::format("option {} is '{}' ({}) on rank 0 and '{}' ({}) on rank {}: start "
                                                   "all ranks with the same options",
                                                   name, expected, origin, here, here_origin, rank));
    }
  }
}

// Alike on all ranks, so that parameters are. A later session of the process continues with the generators as they are:
// the same numbers again would make its phase a copy of the one before.
void Session::Impl::seed_generators() {
  generator_seed = options.seed;
  const bool goes_on = std::exchange(earlier_sessions().seed, options.seed) == options.seed;
  if (goes_on && group.world_size() == 1) return;
  if (goes_on) {  // the ranks' generators differ by then
    generator_seed =
        group.broadcast(static_cast<std::uint64_t>(at::randint(INT64_MAX, {1}, at::kLong).item<std::int64_t>()));
  }
  seed_all(generator_seed);
}

// exit() does not run the destructors of objects on the stack.
void Session::Impl::report_exit() {
  const Impl* const session = current.exchange(nullptr);
  if (session == nullptr || !session->resumed.opened || session->finished) return;
  const std::uint64_t lost = session->progress.step - session->saving.last.step;
  std::fprintf(stderr, "holdfast: exit() was called before session.finish(): %s; the next start continues from %s\n",
               lost == 0 ? "the current step is not saved"
                         : fmt::format("{} and the current one are not saved", storage::plural(lost, "step")).c_str(),
               session->saving.version.empty() ? "the beginning" : ("version " + session->saving.version).c_str());
}

Session::Impl::~Impl() {
  current = nullptr;
  set_session_seed({});
  allow_dataset_change(false);
}

}  // namespace holdfast
