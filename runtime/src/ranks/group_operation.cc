#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <string_view>
#include <utility>

#include "ranks/call_site.h"
#include "ranks/group_impl.h"

namespace holdfast {
namespace {

using storage::StatusCode;

// Gloo's own exceptions have a type that LibTorch does not export.
bool is_connection(const std::exception& error) {
  return dynamic_cast<const c10::DistError*>(&error) != nullptr ||
         std::string_view(error.what()).find("gloo") != std::string_view::npos;
}

}  // namespace

// Lives during one operation. Another operation in that time comes from another thread, and their messages would mix.
class Group::Impl::Turn {
 public:
  Turn(Impl& group, const char* operation, const std::string& site) : group_(group) {
    std::unique_lock lock(group.turn);
    if (!group.under_way.empty()) {
      const std::string text = fmt::format(
          "rank {} calls {} at {} while another of its threads is in {}; one thread at a time calls a group's "
          "operations",
          group.ranks.rank, operation, site, group.under_way);
      lock.unlock();
      group.stop(text, group.ranks.rank);
    }
    group.under_way = fmt::format("{} at {}", operation, site);
  }
  ~Turn() {
    const std::lock_guard lock(group_.turn);
    group_.under_way.clear();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Impl& group_;
};

Group::Impl::Fingerprints Group::Impl::collective(const char* operation, const std::string& what, std::string value,
                                                  const Site& site,
                                                  const std::function<void(const Fingerprints&)>& act) {
  if (closed)
    throw Error(StatusCode::invalid,
                fmt::format("{} at {} was called after session.finish()", operation, text_of(site)));
  check();
  CollectiveFingerprint mine{0, operation, text_of(site), what, value.size(), std::move(value)};
  if (!transport) return {mine};
  const Turn turn_of_this_thread(*this, operation, mine.site);
  mine.sequence = enter(operation, mine.site);
  Fingerprints fingerprints;
  try {
    for (const std::string& wire : transport->exchange(encode(mine))) fingerprints.push_back(decode_fingerprint(wire));
    if (auto text = divergence(fingerprints)) stop(*text, -1);
    fetch_long_values(fingerprints, mine.value);
  } catch (const RankFault&) {
    throw;
  } catch (const Error& error) {
    stop_failed(operation, mine.site, error);
  } catch (const std::bad_alloc& error) {
    stop_failed(operation, mine.site, error);
  } catch (const std::exception& error) {
    stop_broken(operation, mine.site, error);
  }
  try {
    if (act) act(fingerprints);
  } catch (const std::exception& error) {
    if (fault() || is_connection(error)) stop_broken(operation, mine.site, error);
    stop_failed(operation, mine.site, error);
  }
  leave();
  check();
  return fingerprints;
}

// Values that do not fit into a fingerprint follow it. A single one is broadcast; several are padded to the longest.
void Group::Impl::fetch_long_values(Fingerprints& fingerprints, const std::string& mine) {
  std::uint64_t longest = 0;
  std::vector<std::size_t> owners;
  for (std::size_t rank = 0; rank < fingerprints.size(); ++rank) {
    if (fingerprints[rank].value.size() == fingerprints[rank].bytes) continue;
    longest = std::max(longest, fingerprints[rank].bytes);
    owners.push_back(rank);
  }
  if (owners.empty()) return;
  if (owners.size() == 1) {
    CollectiveFingerprint& owner = fingerprints[owners.front()];
    owner.value = static_cast<int>(owners.front()) == ranks.rank ? mine : std::string(longest, '\0');
    transport->broadcast(owner.value, static_cast<int>(owners.front()));
    return;
  }
  std::string padded = mine;
  padded.resize(longest, '\0');
  auto all = transport->exchange(padded);
  for (const std::size_t rank : owners) {
    all[rank].resize(fingerprints[rank].bytes);
    fingerprints[rank].value = std::move(all[rank]);
  }
}

void Group::Impl::check() const {
  if (auto text = fault()) throw RankFault(*text);
}

void Group::Impl::heed_verdict() const {
  if (auto text = watchdog ? watchdog->verdict() : std::nullopt) throw RankFault(*text);
}

void Group::Impl::stop(const std::string& text, int origin) {
  if (watchdog) watchdog->fail(text, origin);
  throw RankFault(text);
}

void Group::Impl::stop_failed(const std::string& operation, const std::string& site, const std::exception& error) {
  stop(fmt::format("rank {} failed in {} at {}: {}", ranks.rank, operation, site, first_line(error.what())),
       ranks.rank);
}

void Group::Impl::stop_broken(const std::string& operation, const std::string& site, const std::exception& error) {
  heed_verdict();
  stop(fmt::format("rank {} lost its connection to another rank in {} at {}: {}", ranks.rank, operation, site,
                   first_line(error.what())),
       ranks.rank);
}

void Group::operation(const std::string& name, const std::function<void()>& act, Site site) {
  impl_->check();
  if (!impl_->transport) return act();
  impl_->enter(name, text_of(site));
  try {
    act();
  } catch (const std::exception& error) {
    if (impl_->fault() || is_connection(error)) impl_->stop_broken(name, text_of(site), error);
    impl_->stop_failed(name, text_of(site), error);
  }
  impl_->leave();
  impl_->check();
}

c10::intrusive_ptr<c10d::ProcessGroup> Group::process_group() const {
  return impl_->transport ? impl_->transport->data() : c10::intrusive_ptr<c10d::ProcessGroup>();
}

void Group::check() const { impl_->check(); }

}  // namespace holdfast
