#include "crash_search.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "crash_images.h"
#include "holdfast/storage/stores/file/file_store.h"

namespace holdfast::storage::crash {
namespace {

const Path kRun = "/home/runs/alpha";

Digest promise_digest(const Digest& image, const Acknowledged& acknowledged) {
  std::string text = image.hex();
  for (const Uid& uid : acknowledged.opens) text += uid.text();
  for (const Acknowledged::Version& version : acknowledged.versions) text += version.uid.text();
  return digest_of(text);
}

}  // namespace

std::string Setting::text() const {
  std::string result = with_versions ? "three versions" : "new run";
  result += refuse_rename_exclusive ? ", in place" : refuse_link ? ", by rename" : ", by link";
  return second_first ? result + ", second part first" : result;
}

std::string to_string(const Sequence& sequence) {
  std::string result = "open";
  for (const Operation operation : sequence) result += ", " + to_string(operation);
  return result;
}

std::vector<Sequence> all_sequences(std::size_t length) {
  std::vector<Sequence> result{{}};
  for (std::size_t begin = 0; result.back().size() < length;) {
    const std::size_t end = result.size();
    for (; begin < end; ++begin) {
      for (const Operation operation : {Operation::save, Operation::prune, Operation::takeover, Operation::drop}) {
        Sequence longer = result[begin];
        longer.push_back(operation);
        result.push_back(std::move(longer));
      }
    }
  }
  return result;
}

std::vector<Run> all_runs(std::size_t length) {
  std::vector<Run> result;
  for (const Sequence& sequence : all_sequences(length)) {
    for (const bool with_versions : {true, false}) {
      result.push_back({{with_versions, false, false, false}, sequence});
      if (sequence.size() > 2) continue;
      result.push_back({{with_versions, true, false, false}, sequence});
      result.push_back({{with_versions, true, true, false}, sequence});
      result.push_back({{with_versions, false, false, true}, sequence});
    }
  }
  return result;
}

void CrashSearch::equip(SimulatedDisk& disk) const {
  disk.refuse_link = setting_.refuse_link;
  disk.refuse_rename_exclusive = setting_.refuse_rename_exclusive;
  disk.second_first = setting_.second_first;
  if (sabotage) sabotage(disk);
}

void CrashSearch::run(const Run& run) {
  const auto& [setting, sequence] = run;
  setting_ = setting;
  context_ = setting.text() + ": " + to_string(sequence);
  SimulatedDisk disk(DiskContent({"/home"}));
  equip(disk);
  std::string step;
  const auto note_step = std::move(disk.at_step);
  disk.at_step = [&](std::string_view reached) {
    step = reached;
    if (note_step) note_step(reached);
  };
  Workload workload(disk, kRun);
  const auto require = [&](const Status& status, const std::string& what) {
    if (!status.ok()) report(what + " fails on a healthy disk: " + status.message());
    return status.ok();
  };
  const auto crash_everywhere = [&] {
    disk.changed = [&] {
      if (done()) return;
      const std::string outer = context_;
      context_ += ", crash in \"" + step + "\"";
      look(disk, workload);
      context_ = outer;
    };
  };

  if (setting.with_versions) {
    if (!require(workload.open(), "open")) return;
    for (int version = 0; version < 3; ++version) {
      if (!require(workload.save(), "save")) return;
    }
    if (!require(workload.close(), "close")) return;
  }
  if (sequence.empty()) crash_everywhere();
  if (!require(workload.open(), "open")) return;
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    if (i + 1 == sequence.size()) crash_everywhere();
    if (!require(workload.run(sequence[i]), to_string(sequence[i]))) return;
    if (sequence[i] == Operation::prune || sequence[i] == Operation::drop) {
      std::vector<std::string> payload;
      History history;
      const auto store = open_file_store(kRun, {}, disk);
      const bool read = disk.list(kRun / "data", payload) == 0 && history.refresh(*store).ok();
      if (!read || payload.size() != history.versions().size()) report("payload of a dropped version stays");
    }
  }
  disk.changed = nullptr;
  if (!done()) {
    context_ += ", crash at the end";
    look(disk, workload);
  }
}

void CrashSearch::look(const SimulatedDisk& disk, const Workload& workload) {
  if (crash_ == Crash::power) {
    lose_power(disk.content(), workload, true);
  } else {
    lose_process(disk.content(), workload);
  }
}

void CrashSearch::lose_power(const DiskContent& content, const Workload& workload, bool restart) {
  const Acknowledged& acknowledged = workload.acknowledged();
  std::size_t looked_at = 0;
  const auto wanted = [&](const Digest& image) {
    if (done() || looked_at == most_images) return Visit::stop;
    if (image.low % slice_.divisor != slice_.remainder) return Visit::skip;
    ++looked_at;
    images_.insert(image);
    return recovered_.insert(promise_digest(image, acknowledged)).second ? Visit::look : Visit::skip;
  };
  const bool may_tear = setting_.refuse_rename_exclusive;
  for_each_image(content, wanted, [&](const DiskContent& image) {
    SimulatedDisk disk(image);
    equip(disk);
    std::string broken = broken_promise(disk, kRun, acknowledged, may_tear);
    if (broken.empty() && restart) broken = broken_restart(disk, kRun, acknowledged, workload.sessions() + 1, may_tear);
    if (!broken.empty()) report(broken);
  });
}

void CrashSearch::lose_process(const DiskContent& content, const Workload& dead) {
  SimulatedDisk disk(content);
  equip(disk);
  Workload second(disk, kRun);
  second.resume(dead.acknowledged(), dead.sessions(), dead.step() + 1);
  const auto after = [&](const Status& status, const std::string& what) {
    if (!status.ok()) report("after the death of the process " + what + " fails: " + status.message());
    if (status.ok()) lose_power(disk.content(), second, false);
    return status.ok() && !done();
  };
  const Status opened = second.open();
  // Publishing in place, in the very first save of the run: the next start refuses, because a version that was never
  // complete cannot be distinguished from a damaged one. Its message names --holdfast.fresh.
  const bool first_is_torn = setting_.refuse_rename_exclusive && dead.acknowledged().versions.empty();
  if (first_is_torn && opened.code() == StatusCode::corrupt) return;
  if (after(opened, "open") && after(second.remove_orphans(), "removing orphans")) after(second.save(), "save");
}

void CrashSearch::report(const std::string& what) {
  constexpr std::size_t kEnough = 20;
  if (broken_.size() < kEnough) broken_.push_back(context_ + ": " + what);
}

void CrashSearch::merge(const CrashSearch& other) {
  images_.insert(other.images_.begin(), other.images_.end());
  recovered_.insert(other.recovered_.begin(), other.recovered_.end());
  broken_.insert(broken_.end(), other.broken_.begin(), other.broken_.end());
}

CrashSearch search_all(Crash crash, Slice slice, const std::vector<Run>& runs) {
  const std::size_t threads = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, 4);
  std::vector<CrashSearch> parts(threads, CrashSearch(crash, slice));
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> running;
  for (CrashSearch& part : parts) {
    running.emplace_back([&] {
      // The longest first, so that a long one does not run alone at the end.
      for (std::size_t i = next++; i < runs.size(); i = next++) part.run(runs[runs.size() - 1 - i]);
    });
  }
  for (std::thread& thread : running) thread.join();
  for (std::size_t i = 1; i < parts.size(); ++i) parts[0].merge(parts[i]);
  return std::move(parts[0]);
}

}  // namespace holdfast::storage::crash
