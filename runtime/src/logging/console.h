// What a user sees: one line at the start, one line of progress, one line for each saved version, one line at an early
// end. All of it goes to standard error, so that standard output is the program's own; all of it but the moving
// progress line also goes to the session's log.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast {

struct StartFacts {
  std::string run = {};
  int ranks = 1;
  std::string platform = {};  // "Kaggle, interactive"; empty: an ordinary machine
  std::string device = {};    // "cpu, 2 threads", "NVIDIA H200"
  std::uint64_t seed = 0;
  std::string place = {};                     // where the checkpoints go
  std::string every = {};                     // when, in words
  std::string time = {};                      // "11 h 57 min left (Colab's limit of 12 h)"; empty: unknown
  std::string resumed = {};                   // "version 42-7f3a, step 1,200"; empty: from scratch
  std::vector<std::string> differences = {};  // what keeps the resume from being bit-exact
  bool sample_exact = false;                  // the difference is the number of ranks, which keeps the order of samples
  std::string note = {};                      // one more sentence, or empty
};

struct SavedFacts {
  std::string version = {};  // "42-7f3a"
  std::uint64_t step = 0;
  std::string reason = {};
  std::uint64_t bytes = 0;
  std::chrono::nanoseconds stall{0};       // how long the loop waited
  std::chrono::nanoseconds to_durable{0};  // from the boundary to the acknowledgement
  std::string durability = {};             // "fsynced"
};

struct EndFacts {
  std::string reason = {};  // "SIGTERM"
  std::uint64_t step = 0;
  std::string version = {};   // the last durable one; empty: none
  std::uint64_t unsaved = 0;  // steps since that version
  bool fresh = false;         // the command has --holdfast.fresh, and would begin from scratch again
  bool non_finite = false;    // the run stopped because numbers became NaN or infinite
  std::string before = {};    // the version before, with fewer such numbers; empty: none
};

struct ProgressFacts {
  std::uint64_t step = 0;
  std::uint64_t total_steps = 0;  // 0: unknown
  std::uint64_t epoch = 0;        // the present one, counted from 1; 0: no epochs
  std::uint64_t total_epochs = 0;
  std::vector<std::pair<std::string, double>> values = {};  // what was logged last
};

std::string start_line(const StartFacts& facts);
std::string saved_line(const SavedFacts& facts);
std::string end_line(const EndFacts& facts);
/// `steps_per_second` 0: unknown.
std::string progress_line(const ProgressFacts& facts, double steps_per_second);

/// Any thread. The destructor leaves the cursor on a fresh line.
class Console {
 public:
  using Clock = std::chrono::steady_clock;
  using Log = std::function<void(std::string_view text)>;
  enum class Style { automatic, terminal, plain, silent };

  /// Automatic: `terminal` if the stream is a terminal that can move its cursor (TERM is set and not "dumb"). Silent:
  /// prints nothing, for every rank but the main one.
  explicit Console(std::FILE* stream = stderr, Style style = Style::automatic);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  /// Also sends lines to `log`, each with its time in UTC in front, beginning with the earlier ones. The log is called
  /// under the console's lock, so it must not use the console.
  void set_log(Log log);

  /// One line, "holdfast: " in front.
  void say(std::string_view line);
  /// As say(), but also prints on a silent console: for what the main rank does not know.
  void say_of_rank(std::string_view line);
  /// Prints the program's own text to standard output, unchanged; clears the moving progress line first.
  void print(std::string_view text);
  /// Cheap enough for every step: on a terminal a line that moves ten times a second; elsewhere a plain line every 30
  /// s. `facts` is called only when a line is due.
  void progress(std::uint64_t step, Clock::time_point now, const std::function<ProgressFacts()>& facts);

  static constexpr std::chrono::milliseconds kMoving{100};
  static constexpr std::chrono::seconds kPlain{30};

 private:
  void clear_moving_line();
  void log_line(std::string_view line);

  std::FILE* stream_;
  bool terminal_;
  bool silent_;
  std::mutex mutex_;
  Log log_;
  std::string before_log_;  // lines from before set_log()
  bool moving_line_ = false;
  bool started_ = false;
  Clock::time_point due_, log_due_;
  // The rate is taken from a mark that is 10 to 20 s old.
  std::pair<std::uint64_t, Clock::time_point> old_mark_, new_mark_;
};

}  // namespace holdfast
