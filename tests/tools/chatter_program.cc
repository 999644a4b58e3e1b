// A rank that writes numbered lines in pieces that end anywhere. Arguments: LINES, LENGTH. Its last line has no
// newline.
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <string>

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  const char* rank = std::getenv("RANK");
  std::string text;
  for (int i = 0; i < std::atoi(argv[1]); ++i) {
    const std::string head = std::string(rank ? rank : "?") + ":" + std::to_string(i) + ":";
    text += head + std::string(static_cast<std::size_t>(std::atoi(argv[2])), 'x') + ".\n";
  }
  text.pop_back();
  std::minstd_rand random;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t size = std::min<std::size_t>(text.size() - at, random() % 5000 + 1);
    const ssize_t written = ::write(1, text.data() + at, size);
    if (written < 0) return 1;
    at += static_cast<std::size_t>(written);
  }
}
