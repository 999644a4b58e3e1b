// One of launch's own output streams; writing to it never waits for its reader.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace holdfast::tools {

class Output {
 public:
  /// Does not own `descriptor`.
  explicit Output(int descriptor);
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  bool is_terminal() const { return is_terminal_; }
  /// Whole lines, or any bytes of an only rank; kept until the reader takes them.
  void add(std::string_view lines);
  /// A line of launch's own. It starts on a new line even if an only rank left its line unfinished.
  void add_own_line(std::string_view line);
  /// A line at the terminal's bottom that is rewritten in place; empty removes it.
  void show_progress(std::string line);

  /// For polling for writing while pending().
  int descriptor() const { return descriptor_; }
  bool pending() const { return begin_ < bytes_.size(); }
  /// So much waits for the reader that the ranks should wait too.
  bool full() const { return bytes_.size() - begin_ > (1u << 20); }
  /// Writes as much as the reader takes now.
  void write_some();
  /// The errno of a write that failed; after it, bytes are discarded. 0: none.
  int error() const { return error_; }

 private:
  void put(std::string_view bytes);

  int descriptor_;
  bool is_terminal_;
  bool own_ = false;       // the descriptor was opened here
  bool may_wait_ = false;  // writing more than poll reported as free would block
  std::string bytes_;
  std::size_t begin_ = 0;  // of the bytes not written yet
  std::string progress_;
  bool progress_shown_ = false;
  bool line_open_ = false;
  int error_ = 0;
};

/// Whether both descriptors lead to the same place. Then one Output must serve both because two would interleave within
/// lines.
bool same_place(int one, int other);

}  // namespace holdfast::tools
