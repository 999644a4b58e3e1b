#include "doctor/place_probe.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <array>
#include <boost/filesystem/operations.hpp>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "doctor/other_process.h"
#include "holdfast/storage/stores/file/file_store.h"
#include "holdfast/storage/stores/object_name.h"

namespace holdfast::tools {

using storage::Path;
using storage::Status;
using storage::StatusCode;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int kEntries = 7;
constexpr std::size_t kRange = 4097;  // not a whole number of pages

// Bytes that do not compress and differ from block to block.
void fill(std::span<std::byte> into, std::uint64_t& state) {
  for (std::size_t at = 0; at < into.size(); at += sizeof state) {
    state = state * 6364136223846793005u + 1442695040888963407u;  // Knuth, MMIX
    std::memcpy(into.data() + at, &state, std::min(sizeof state, into.size() - at));
  }
}

constexpr std::string_view kPrefix = ".holdfast-doctor-";
constexpr std::time_t kLeftOver = 3600;  // seconds: longer than any probe takes

// A probe that was killed could not remove its folder.
void remove_left_over(const Path& home) {
  boost::system::error_code error;
  std::vector<Path> found;
  for (boost::filesystem::directory_iterator entry(home, error), end; !error && entry != end; entry.increment(error)) {
    boost::system::error_code gone;
    const std::time_t written = boost::filesystem::last_write_time(entry->path(), gone);
    if (!gone && entry->path().filename().string().starts_with(kPrefix) && written + kLeftOver < std::time(nullptr))
      found.push_back(entry->path());
  }
  for (const Path& path : found) boost::filesystem::remove_all(path, error);
}

// Removes what the probe made, however it ends.
class ProbeRun {
 public:
  explicit ProbeRun(const Path& home)
      : made_home_(!boost::filesystem::exists(home, error_)),
        home_(home),
        path_(home / (std::string(kPrefix) + storage::random_session_id())) {}
  ~ProbeRun() {
    boost::filesystem::remove_all(path_, error_);
    if (made_home_) boost::filesystem::remove(home_, error_);  // only if it is empty
  }
  ProbeRun(const ProbeRun&) = delete;
  ProbeRun& operator=(const ProbeRun&) = delete;
  const Path& path() const { return path_; }

 private:
  boost::system::error_code error_;
  bool made_home_;
  Path home_, path_;
};

Status publish(storage::Store& store, const std::string& name, const std::string& text) {
  auto staged = store.stage(name, text);
  if (!staged) return staged.status();
  if (Status published = (*staged)->publish(); !published.ok()) return published;
  return store.sync_folder("journal");
}

Status try_entries(storage::Store& store, const std::string& session, PlaceFacts& facts) {
  std::vector<std::string> names;
  std::vector<std::chrono::nanoseconds> times;
  for (int i = 1; i <= kEntries; ++i) {
    names.push_back("journal/" + storage::Uid{static_cast<std::uint64_t>(i), session}.text() + ".note.json");
    const auto begin = Clock::now();
    if (Status published = publish(store, names.back(), std::string(600, 'x')); !published.ok()) return published;
    times.push_back(Clock::now() - begin);
  }
  std::sort(times.begin(), times.end());
  facts.entry = times[times.size() / 2];
  facts.refuses_second_create = publish(store, names.front(), "other").code() == StatusCode::already_exists &&
                                store.get(names.front()).ok() && *store.get(names.front()) == std::string(600, 'x');
  const auto listed = store.list("journal");
  if (!listed) return listed.status();
  facts.lists_what_was_created = *listed == names;
  return {};
}

Status write_payload(storage::Store& store, const std::string& name, PlaceFacts& facts) {
  const auto begin = Clock::now();
  auto writer = store.create(name, facts.payload);
  if (!writer) return writer.status();
  std::uint64_t state = 1;
  for (std::uint64_t written = 0; written < facts.payload;) {
    auto buffer = (*writer)->buffer();
    buffer = buffer.first(std::min<std::uint64_t>(buffer.size(), facts.payload - written));
    fill(buffer, state);
    if (Status advanced = (*writer)->advance(buffer.size()); !advanced.ok()) return advanced;
    written += buffer.size();
  }
  if (Status finished = (*writer)->finish(); !finished.ok()) return finished;
  if (Status synced = store.sync_folder("data"); !synced.ok()) return synced;
  facts.writing = Clock::now() - begin;
  return {};
}

Status read_payload(const storage::Store& store, const std::string& name, PlaceFacts& facts) {
  const auto reader = store.open(name);
  if (!reader) return reader.status();
  std::vector<std::byte> expected(facts.payload), found(facts.payload);
  std::uint64_t state = 1;
  fill(expected, state);
  const auto begin = Clock::now();
  if (Status read = (*reader)->read(0, found); !read.ok()) return read;
  facts.reading = Clock::now() - begin;
  std::array<std::byte, kRange> range;
  const std::size_t middle = facts.payload / 2 + 1;
  if (Status read = (*reader)->read(middle, range); !read.ok()) return read;
  facts.reads_back = found == expected && std::memcmp(range.data(), expected.data() + middle, range.size()) == 0;
  return {};
}

PlaceFacts probe_here(const Path& folder, std::uint64_t payload) {
  PlaceFacts facts;
  facts.payload = std::max<std::uint64_t>(payload, 4 * kRange);
  remove_left_over(folder);
  const ProbeRun run(folder);
  const auto store = storage::open_file_store(run.path());
  if (facts.outcome = store->prepare(); !facts.outcome.ok()) return facts;
  facts.capabilities = store->capabilities();
  if (struct statvfs space{}; ::statvfs(run.path().c_str(), &space) == 0) {
    facts.free = std::uint64_t{space.f_bavail} * space.f_frsize;
    facts.total = std::uint64_t{space.f_blocks} * space.f_frsize;
  }
  const std::string session = storage::random_session_id();
  if (facts.outcome = try_entries(*store, session, facts); !facts.outcome.ok()) return facts;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::string name = "data/" + storage::Uid{1, session}.text() + ".r0of1.safetensors";
  if (struct stat status{}; ::stat((run.path() / "journal").c_str(), &status) == 0) {
    facts.clock_ahead = std::chrono::seconds(status.st_mtim.tv_sec) + std::chrono::nanoseconds(status.st_mtim.tv_nsec) -
                        std::chrono::duration_cast<std::chrono::nanoseconds>(now);
  }
  if (facts.outcome = write_payload(*store, name, facts); !facts.outcome.ok()) return facts;
  facts.outcome = read_payload(*store, name, facts);
  return facts;
}

// What the other process sends.
nlohmann::json to_json(const PlaceFacts& facts) {
  const auto& able = facts.capabilities;
  return {{"code", static_cast<int>(facts.outcome.code())},
          {"message", facts.outcome.message()},
          {"capabilities",
           {able.create_only_enforced, able.atomic_publish, able.durable_put, able.list_after_create, able.ranged_read,
            able.host_lock}},
          {"refuses_second_create", facts.refuses_second_create},
          {"lists_what_was_created", facts.lists_what_was_created},
          {"reads_back", facts.reads_back},
          {"entry_ns", facts.entry.count()},
          {"payload", facts.payload},
          {"writing_ns", facts.writing.count()},
          {"reading_ns", facts.reading.count()},
          {"clock_ahead_ns", facts.clock_ahead.count()},
          {"free", facts.free},
          {"total", facts.total}};
}

PlaceFacts facts_from(const nlohmann::json& json) {
  PlaceFacts facts;
  if (const std::string message = json.at("message"); !message.empty()) {
    facts.outcome = {static_cast<StatusCode>(json.at("code").get<int>()), message};
  }
  const auto& able = json.at("capabilities");
  facts.capabilities = {.create_only_enforced = able.at(0),
                        .atomic_publish = able.at(1),
                        .durable_put = able.at(2),
                        .list_after_create = able.at(3),
                        .ranged_read = able.at(4),
                        .host_lock = able.at(5)};
  facts.refuses_second_create = json.at("refuses_second_create");
  facts.lists_what_was_created = json.at("lists_what_was_created");
  facts.reads_back = json.at("reads_back");
  facts.entry = std::chrono::nanoseconds(json.at("entry_ns").get<std::int64_t>());
  facts.payload = json.at("payload");
  facts.writing = std::chrono::nanoseconds(json.at("writing_ns").get<std::int64_t>());
  facts.reading = std::chrono::nanoseconds(json.at("reading_ns").get<std::int64_t>());
  facts.clock_ahead = std::chrono::nanoseconds(json.at("clock_ahead_ns").get<std::int64_t>());
  facts.free = json.at("free");
  facts.total = json.at("total");
  return facts;
}

}  // namespace

PlaceFacts probe_place(const Path& folder, std::uint64_t payload, std::chrono::seconds patience) {
  const auto work = [&] {
    PlaceFacts facts;
    try {
      facts = probe_here(folder, payload);
    } catch (const std::exception& error) {
      facts.outcome = {StatusCode::unreadable, error.what()};
    }
    return to_json(facts).dump();
  };
  const auto answer = in_other_process(folder.string(), work, patience);
  if (answer) return facts_from(nlohmann::json::parse(*answer));
  PlaceFacts facts;
  facts.outcome = answer.status();
  return facts;
}

}  // namespace holdfast::tools
