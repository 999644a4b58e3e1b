// Which ranks there are, and the environment that each one gets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::tools {

/// Every node starts the same number of ranks.
struct World {
  int nodes = 1;
  int node = 0;
  int ranks_here = 1;
  std::string address = "127.0.0.1";  // where rank 0's store listens
  int port = 0;

  int size() const { return nodes * ranks_here; }
  int rank_of(int local) const { return node * ranks_here + local; }
};

/// "host:29500", "[::1]:29500"; empty where the port or the host is missing.
struct Rendezvous {
  std::string address;
  int port = 0;
};
std::optional<Rendezvous> parse_rendezvous(const std::string& text);

/// Number of NVIDIA GPUs that a program on this host may use; 1 if there is none because the CPU is one device.
int ranks_for_devices();

struct StartFacts {
  int number = 0;             // 0 for the first start, 1 for the first restart
  std::string progress_file;  // where rank 0 writes the step of its last saved version
  int listening = -1;         // the descriptor of the listening socket, for rank 0
};

/// The environment of this process, changed for rank `local` of this node.
std::vector<std::string> environment_of(const World& world, int local, const StartFacts& start);

/// The entry of that environment which only the ranks of this launch have.
std::string own_entry(const std::string& progress_file);

}  // namespace holdfast::tools
