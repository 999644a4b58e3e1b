// A cloud's announcement that it is about to take this machine back, and the texts in which each cloud writes it.
//
// Sources: Amazon EC2 User Guide, "Spot Instance interruption notices"; Compute Engine, "Preemptible VM instances" and
// "Spot VMs"; Azure Virtual Machines, "Scheduled Events for Linux VMs".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "holdfast/storage/status.h"

namespace holdfast {

struct PreemptionNotice {
  std::string reason;                       // why the run stops: "EC2 will terminate this machine at 2026-01-31T…"
  std::optional<std::int64_t> machine_end;  // seconds since the Unix epoch; empty: the cloud does not say when
};

using Notice = std::optional<PreemptionNotice>;

// Each reads the body of an answer with status 200. A body of another form is `corrupt`.

/// {"action": "terminate", "time": "2026-01-31T23:59:59Z"}; the actions are terminate, stop and hibernate.
storage::Result<Notice> ec2_notice(const std::string& body);
/// TRUE or FALSE.
storage::Result<Notice> gce_notice(const std::string& body);
/// The document of all events that concern the machine's group. Those that end a machine count: Preempt, Terminate,
/// Redeploy and Reboot. `machine` is this one's name, as in the events.
storage::Result<Notice> azure_notice(const std::string& body, const std::string& machine);

}  // namespace holdfast
