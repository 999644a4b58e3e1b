// One of launch's own output streams, written without ever waiting for its reader.
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
  /// Whole lines, or all that there is to come from an only rank; kept until the reader takes them.
  void add(std::string_view lines);
  /// A line of launch's own, which does not go on one that an only rank left unfinished.
  void add_own_line(std::string_view line);
  /// A line at the terminal's bottom that is rewritten in place; empty: none.
  void show_progress(std::string line);

  /// To poll for writing while pending().
  int descriptor() const { return descriptor_; }
  bool pending() const { return begin_ < bytes_.size(); }
  /// So much waits for the reader that the ranks had better wait too.
  bool full() const { return bytes_.size() - begin_ > (1u << 20); }
  /// As much as the reader takes now.
  void write_some();
  /// The errno of a write that failed; from then on bytes go nowhere. 0: none.
  int error() const { return error_; }

 private:
  void put(std::string_view bytes);

  int descriptor_;
  bool is_terminal_;
  bool own_ = false;       // the descriptor was opened here
  bool may_wait_ = false;  // a write of more than poll promised room for would wait
  std::string bytes_;
  std::size_t begin_ = 0;  // of what is not written yet
  std::string progress_;
  bool progress_shown_ = false;
  bool line_open_ = false;
  int error_ = 0;
};

/// Both descriptors lead to the same place, so that one Output must serve them: lines of two would tear each other.
bool same_place(int one, int other);

}  // namespace holdfast::tools
