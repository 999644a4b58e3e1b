// The promises that hold in every state of a World, and the sentences for those that are broken.
#include <algorithm>
#include <utility>

#include "holdfast/storage/run/payload.h"
#include "work.h"
#include "world_writer.h"

namespace holdfast::storage::model {
namespace {

std::string text_of(const Work& work) {
  std::string text;
  for (const std::uint32_t item : work) text += (text.empty() ? "" : " ") + std::to_string(item);
  return "[" + text + "]";
}

}  // namespace

std::vector<std::string> World::lost_work(const Work& found, const std::set<SessionOrder>& without_rewinds) const {
  // The highest deliberate rewind, and the work it rewound to.
  std::optional<SessionOrder> rewound;
  std::optional<Uid> base;
  for (const OpenEntry& open : image_->opens()) {
    const SessionOrder order{open.epoch, open.uid.session};
    if (!open.rewind || without_rewinds.contains(order) || (rewound && order < *rewound)) continue;
    rewound = order;
    base = open.base;
  }
  const Work kept = base ? image_->work_of(*base) : Work();
  std::vector<std::string> lost;
  bool rewinder_has_saved = false;
  for (const Acknowledged& one : acknowledged_) {
    rewinder_has_saved = rewinder_has_saved || (rewound && one.order.session == rewound->session);
    const bool left_behind = rewound && one.order < *rewound && !holds(kept, one.item);
    if (!left_behind && !holds(found, one.item)) {
      lost.push_back("lost " + one.uid.text() + ": its work " + std::to_string(one.item) +
                     " was acknowledged, and is not in " + text_of(found));
    }
  }
  const bool may_not_count = rewound && (is_superseded(*rewound) || (base && image_->is_dropped(*base)));
  if (!lost.empty() && may_not_count && !rewinder_has_saved) {
    std::set<SessionOrder> without = without_rewinds;
    without.insert(*rewound);
    return lost_work(found, without);
  }
  return lost;
}

std::vector<std::string> World::try_to_go_on() const {
  auto after = std::make_shared<Image>(*image_);
  SteppedStore store(after, {});
  FaultySteps steps;
  Work work;
  OpenRequest request = request_of("55555555", steps);
  auto hold = open_work(store, request, work);
  if (!hold.ok()) return {"cannot open afterwards: " + hold.status().message()};
  std::vector<std::string> broken = lost_work(work);
  auto saved = save_work(**hold, work, 9);
  if (!saved.ok()) return {"cannot save afterwards: " + saved.status().message()};

  History history;
  if (Status read = history.refresh(store); !read.ok()) return {"cannot list afterwards: " + read.message()};
  auto choice = choose_base(history, {.program = "program"});
  if (!choice.ok() || !choice->version || choice->version->uid != saved->uid) {
    broken.push_back("the version saved afterwards is not the latest");
  }
  for (const auto* wrongs : {&after->wrongs(), &store.wrongs()})
    broken.insert(broken.end(), wrongs->begin(), wrongs->end());
  return broken;
}

std::vector<std::string> World::missing_bases() const {
  std::vector<std::string> missing;
  for (const auto& writer : writers_) {
    if (!writer->base || !writer->order || is_superseded(*writer->order)) continue;
    const auto payload = image_->find(payload_name({*writer->base, 0, 1}));
    if (!image_->find(entry_name(*writer->base, EntryKind::save)) || !payload || payload->empty()) {
      missing.push_back("writer " + writer->program.session.substr(0, 1) + " has lost its base " +
                        writer->base->text() + " before its first save");
    }
  }
  return missing;
}

std::vector<std::string> World::broken_promises(std::unordered_set<Fingerprint, FingerprintHash>& known_good) {
  std::vector<std::string> broken = wrongs_;
  for (const auto& writer : writers_) {
    broken.insert(broken.end(), writer->store->wrongs().begin(), writer->store->wrongs().end());
  }
  broken.insert(broken.end(), image_->wrongs().begin(), image_->wrongs().end());
  const auto missing = missing_bases();
  broken.insert(broken.end(), missing.begin(), missing.end());

  Fingerprint question = image_->fingerprint();
  Fingerprint told;
  for (const Acknowledged& one : acknowledged_) told.add(one.uid.text() + ' ' + std::to_string(one.item));
  for (const auto& writer : writers_) told.add(writer->program.session + (writer->open_failed ? " failed" : ""));
  question.then(told);
  if (!known_good.contains(question)) {
    const auto after = try_to_go_on();
    broken.insert(broken.end(), after.begin(), after.end());
    if (after.empty()) known_good.insert(question);
  }
  return broken;
}

}  // namespace holdfast::storage::model
