#include "places.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "holdfast/storage/tiers/mirror.h"

namespace holdfast::storage::model {

struct Places::Session {
  SessionPlan plan;
  FaultySteps steps;
  // The writer's and the copier's views.
  std::unique_ptr<SteppedStore> home, far, copied_home, copied_far;
  std::unique_ptr<Fiber> writer, copier;
  std::string writers_next = "start", copiers_next = "wait";
  bool writer_is_dead = false, copier_is_dead = false;

  std::vector<std::string> said;
  std::optional<SessionOrder> order;  // once opened
  bool mirror_was_read = false;
  Work work;
  std::optional<Uid> newest;  // acknowledged
  std::optional<Uid> in_copy;
  bool has_ended = false;
  bool is_superseded = false;
};

namespace {

std::vector<Work> works_in(const std::shared_ptr<Image>& image) { return works_in(SteppedStore(image, {})); }

/// Whether the journals mention versions that neither place holds: another machine has them, so a session must not
/// begin from scratch by itself.
bool are_elsewhere(const std::shared_ptr<Image>& home, const std::shared_ptr<Image>& far) {
  return works_in(home).empty() && works_in(far).empty() && !(home->opens().empty() && far->opens().empty());
}

}  // namespace

Places::Places(std::size_t machines) : mirror_(std::make_shared<Image>()) {
  for (std::size_t i = 0; i < machines; ++i) homes_.push_back(std::make_shared<Image>());
}

Places::~Places() {
  for (auto& [name, session] : sessions_) {
    session->plan.uploads_after_death = false;
    kill(name);
  }
}

void Places::start(const SessionPlan& plan) {
  auto& session = *(sessions_[plan.session] = std::make_unique<Session>());
  session.plan = plan;
  const auto hooks = [](std::unique_ptr<Fiber>& fiber, std::string& next, bool& is_dead) {
    return SteppedStore::Hooks{.before =
                                   [&](std::string_view what) {
                                     next = what;
                                     fiber->yield();
                                     if (is_dead) throw WriterDied();
                                   },
                               .may_meet = {}};
  };
  const auto of_writer = hooks(session.writer, session.writers_next, session.writer_is_dead);
  const auto of_copier = hooks(session.copier, session.copiers_next, session.copier_is_dead);
  session.home = std::make_unique<SteppedStore>(homes_[plan.home], of_writer);
  session.far = std::make_unique<SteppedStore>(mirror_, of_writer);
  session.copied_home = std::make_unique<SteppedStore>(homes_[plan.home], of_copier);
  session.copied_far = std::make_unique<SteppedStore>(mirror_, of_copier);
  const auto fiber = [this, &session](void (Places::*live)(Session&)) {
    return std::make_unique<Fiber>([this, &session, live] {
      try {
        (this->*live)(session);
      } catch (const WriterDied&) {
      }
    });
  };
  session.writer = fiber(&Places::write);
  session.copier = fiber(&Places::copy);
}

// In the writer's fiber.
void Places::write(Session& session) {
  OpenRequest request = request_of(session.plan.session, session.steps);
  request.say = [&](const std::string& line) { session.said.push_back(line); };
  OtherPlace other{session.far.get(), {}, session.far.get()};
  if (session.plan.mirror_is_unreachable) other.reached = {StatusCode::unreadable, "the mirror does not answer"};
  request.others = {other};
  const auto name = [&] { return "session " + session.plan.session.substr(0, 1) + ": "; };
  auto run = open_work(*session.home, request, session.work);
  if (!run.ok()) {
    session.is_superseded = run.code() == StatusCode::superseded;
    // Never from scratch by itself where versions may be elsewhere.
    const auto& home = homes_[session.plan.home];
    const bool refuses =
        may_refuse(session.plan.home, home) || (session.plan.mirror_is_unreachable && works_in(home).empty());
    if (session.is_superseded ? !has_later(session) : !refuses) {
      wrongs_.push_back(name() + "cannot open: " + run.status().message());
    }
    session.has_ended = true;
    return;
  }
  for (const std::string& line : session.said) totals_.forks += line.find("two places apart") != std::string::npos;
  session.order = (*run)->order();
  session.mirror_was_read = (*run)->was_read(*session.far);
  for (std::uint32_t i = 1; i <= session.plan.saves && !session.is_superseded; ++i) {
    const auto item = static_cast<std::uint32_t>(std::stoul(session.plan.session.substr(0, 1), nullptr, 16) * 100 + i);
    const auto saved = save_work(**run, session.work, item);
    if (saved.ok()) {
      acknowledged_.push_back({session.plan.home, item, saved->uid});
      ++totals_.acknowledged;
      session.newest = saved->uid;
    }
    Status status = saved.ok() ? Status() : saved.status();
    if (status.ok() && i % 2 == 0) {
      std::set<Uid> in_use;
      if (session.in_copy) in_use.insert(*session.in_copy);
      if (session.newest) in_use.insert(*session.newest);
      const auto dropped = (*run)->prune({session.plan.keep_last}, in_use);
      if (!dropped.ok()) status = dropped.status();
    }
    if (status.ok()) continue;
    session.is_superseded = status.code() == StatusCode::superseded;
    if (!session.is_superseded || !has_later(session)) wrongs_.push_back(name() + "cannot save: " + status.message());
    break;
  }
  if (session.is_superseded) ++totals_.superseded;
  session.has_ended = true;
}

// In the copier's fiber: what a program's thread for this mirror does.
void Places::copy(Session& session) {
  const auto wait = [&] {
    session.copiers_next = "wait";
    session.copier->yield();
    if (session.copier_is_dead) throw WriterDied();
  };
  while (!session.order && !session.has_ended) wait();
  if (!session.order) return;
  MirrorOptions options;
  options.session = *session.order;
  options.retention = {session.plan.keep_last};
  options.is_announced = session.mirror_was_read;
  options.wall_time = [] { return std::string("2026-01-01T00:00:00Z"); };
  options.steps = &session.steps;
  Mirror mirror(*session.copied_home, *session.copied_far, options);
  std::optional<Uid> copied;
  int failures = 0;
  for (;;) {
    if (session.newest == copied) {
      if (session.has_ended || session.writer_is_dead) return;
      wait();
      continue;
    }
    session.in_copy = session.newest;
    const Work work = homes_[session.plan.home]->work_of(*session.in_copy);
    const auto arrived = mirror.copy(*session.in_copy);
    if (arrived.ok()) {
      copied = session.in_copy;
      mirrored_.insert(work.begin(), work.end());
      ++totals_.mirrored;
    } else if (arrived.code() == StatusCode::superseded) {
      if (!has_later(session)) wrongs_.push_back("a copier is superseded by nobody: " + arrived.status().message());
      // A session that started before this one, but was not known to it: only the mirror is given up.
      session.is_superseded = session.mirror_was_read;
      return;
    } else if (arrived.code() != StatusCode::not_found && ++failures > 3) {
      // A later session may have removed what was half copied; then the next attempt finds that session.
      wrongs_.push_back("session " + session.plan.session.substr(0, 1) + " cannot copy: " + arrived.status().message());
      return;
    }
    session.in_copy.reset();
    if (session.writer_is_dead) return;  // what had been begun has arrived
  }
}

bool Places::has_later(const Session& session) const {
  for (const auto& image : {homes_[session.plan.home], mirror_}) {
    std::optional<SessionOrder> own = session.order;
    for (const OpenEntry& open : image->opens()) {
      if (open.uid.session == session.plan.session) own = SessionOrder{open.epoch, open.uid.session};
    }
    for (const OpenEntry& open : image->opens()) {
      if (own && SessionOrder{open.epoch, open.uid.session} > *own) return true;
    }
  }
  return false;
}

// A folder that was copied in part may name versions, and lack the entries that tell which older ones they continue.
bool Places::may_refuse(std::size_t home, const std::shared_ptr<Image>& image) const {
  return are_elsewhere(image, mirror_) || home == copied_;
}

std::vector<std::string> Places::able() const {
  std::vector<std::string> fibers;
  for (const auto& [name, session] : sessions_) {
    if (!session->writer->finished()) fibers.push_back(name.substr(0, 1) + " writer");
    const bool waits = session->copiers_next == "wait" && session->newest == session->in_copy && !session->has_ended;
    if (!session->copier->finished() && !waits) fibers.push_back(name.substr(0, 1) + " copier");
  }
  return fibers;
}

std::string Places::next(const std::string& fiber) const {
  for (const auto& [name, session] : sessions_) {
    if (name[0] == fiber[0]) return fiber.ends_with("writer") ? session->writers_next : session->copiers_next;
  }
  return "";
}

void Places::step(const std::string& fiber) {
  ++totals_.steps;
  for (auto& [name, session] : sessions_) {
    if (name[0] == fiber[0]) (fiber.ends_with("writer") ? session->writer : session->copier)->resume();
  }
}

void Places::kill(const std::string& name) {
  Session& session = *sessions_.at(name);
  const auto end = [](Fiber& fiber, bool& is_dead, SteppedStore& one, SteppedStore& other) {
    if (fiber.finished()) return;
    is_dead = true;
    one.die();
    other.die();
    fiber.resume();
  };
  if (!session.writer->finished()) ++totals_.deaths;
  session.writer_is_dead = true;
  end(*session.writer, session.writer_is_dead, *session.home, *session.far);
  if (session.plan.uploads_after_death && session.in_copy) return;
  end(*session.copier, session.copier_is_dead, *session.copied_home, *session.copied_far);
}

bool Places::is_over(const std::string& name) const { return sessions_.at(name)->writer->finished(); }

void Places::copy_half(std::size_t from, std::size_t to, std::mt19937& random) {
  copied_ = to;
  std::vector<std::string> names;
  for (const char* folder : {"journal", "data"}) {
    for (const std::string& name : homes_[from]->list(folder)) names.push_back(name);
  }
  std::shuffle(names.begin(), names.end(), random);
  if (!names.empty()) names.resize(random() % names.size());
  for (const std::string& name : names) {
    const auto bytes = homes_[from]->find(name);
    // A file may be cut off, too.
    homes_[to]->create(
        name, random() % 8 == 0 ? std::make_shared<const std::string>(bytes->substr(0, bytes->size() / 2)) : bytes);
  }
}

std::vector<std::string> Places::check_open(std::size_t home, const std::shared_ptr<Image>& image) const {
  std::vector<std::string> broken;
  const std::string where = home < homes_.size() ? "machine " + std::to_string(home) + ": " : "a new machine: ";
  auto here = std::make_shared<Image>(*image), far = std::make_shared<Image>(*mirror_);
  SteppedStore store(here, {}), mirror(far, {});
  FaultySteps steps;
  Work work;
  OpenRequest request = request_of("ffffffff", steps);
  request.others = {{&mirror, {}, &mirror}};
  auto run = open_work(store, request, work);
  if (!run.ok() && may_refuse(home, image)) return {};
  if (!run.ok()) return {where + "cannot open afterwards: " + run.status().message()};
  const auto saved = save_work(**run, work, 999);
  if (!saved.ok()) return {where + "cannot save afterwards: " + saved.status().message()};
  if (const auto dropped = (*run)->prune({1}); !dropped.ok()) {
    return {where + "cannot prune afterwards: " + dropped.status().message()};
  }
  // All of home's work is in the line that was chosen, or in versions that stay.
  const auto works = works_in(here);
  for (const Save& one : acknowledged_) {
    if (one.home == home && !any_holds(works, one.item)) {
      broken.push_back(where + "lost " + one.uid.text() + " after the next session has pruned");
    }
  }
  Mirror copier(store, mirror, {.session = (*run)->order(), .retention = {1}, .is_announced = true});
  if (const auto arrived = copier.copy(saved->uid); !arrived.ok()) {
    return {where + "cannot copy afterwards: " + arrived.status().message()};
  }
  const auto in_mirror = works_in(far);
  for (const std::uint32_t item : mirrored_) {
    if (!any_holds(in_mirror, item)) {
      broken.push_back(where + "the mirror lost " + std::to_string(item) + " when the next session copied to it");
    }
  }
  for (const auto& one : {here, far}) broken.insert(broken.end(), one->wrongs().begin(), one->wrongs().end());
  return broken;
}

std::vector<std::string> Places::broken_promises() const {
  std::vector<std::string> broken = wrongs_;
  const auto add = [&](const std::vector<std::string>& more) { broken.insert(broken.end(), more.begin(), more.end()); };
  add(mirror_->wrongs());
  for (const auto& home : homes_) add(home->wrongs());
  for (const auto& [name, session] : sessions_) {
    for (const auto* store : {session->home.get(), session->far.get()}) add(store->wrongs());
  }
  std::vector<std::vector<Work>> at_home;
  for (const auto& home : homes_) at_home.push_back(works_in(home));
  for (const Save& one : acknowledged_) {
    if (!any_holds(at_home[one.home], one.item)) broken.push_back("lost " + one.uid.text() + " at home");
  }
  const auto in_mirror = works_in(mirror_);
  for (const std::uint32_t item : mirrored_) {
    if (!any_holds(in_mirror, item)) broken.push_back("lost " + std::to_string(item) + " in the mirror");
  }
  for (std::size_t home = 0; home < homes_.size(); ++home) add(check_open(home, homes_[home]));
  add(check_open(homes_.size(), std::make_shared<Image>()));
  return broken;
}

PlacesTotals Places::totals() const { return totals_; }

}  // namespace holdfast::storage::model
