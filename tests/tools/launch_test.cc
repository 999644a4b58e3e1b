#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <functional>
#include <map>
#include <sstream>
#include <thread>

#include "command.h"

using namespace std::chrono_literals;

namespace {

using Words = std::vector<std::string>;

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

bool contains(const std::string& text, const std::string& part) { return count(text, part) > 0; }

/// A long limit, for a busy machine; the awaited events usually take milliseconds.
bool soon(const std::function<bool()>& happened) {
  const auto limit = std::chrono::steady_clock::now() + 30s;
  while (!happened()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

/// 'R', 'S', 'T', …; 0 if the process does not exist.
char state_of(pid_t pid) {
  const std::string stat = content_of("/proc/" + std::to_string(pid) + "/stat");
  const auto name_end = stat.rfind(')');
  return name_end == std::string::npos ? '\0' : stat[name_end + 2];
}

bool has_temporary_folder(const std::string& parent) {
  for (const auto& entry : boost::filesystem::directory_iterator(parent)) {
    if (contains(entry.path().string(), "holdfast-launch-")) return true;
  }
  return false;
}

bool is_gone(pid_t pid) { return state_of(pid) == 0 || state_of(pid) == 'Z'; }

/// A launch that runs while the test observes it. Ranks find the test's folder in $HERE.
class Launch {
 public:
  explicit Launch(Words words, bool on_terminal = false, bool ignores_hangup = false) {
    const std::string program = program_beside("holdfast");
    words.insert(words.begin(), {program, "launch"});
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = on_terminal ? ::forkpty(&terminal_, nullptr, nullptr, nullptr) : ::fork();
    if (pid_ == 0) {
      ::setenv("HERE", folder().c_str(), 1);
      ::setenv("TMPDIR", folder().c_str(), 1);
      if (ignores_hangup) ::signal(SIGHUP, SIG_IGN);
      if (!on_terminal) {
        ::dup2(::open((folder() + "/out").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), 1);
        ::dup2(::open((folder() + "/err").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), 2);
      }
      ::execv(program.c_str(), argv.data());
      ::_exit(127);
    }
    if (on_terminal) {
      reader_ = std::thread([this] {
        char buffer[4096];
        for (ssize_t got; (got = ::read(terminal_, buffer, sizeof buffer)) > 0;) {
          std::ofstream(folder() + "/out", std::ios::app).write(buffer, got);
        }
      });
    }
  }
  ~Launch() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
    if (terminal_ >= 0) ::close(terminal_);
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  std::string folder() const { return scratch_.path().string(); }
  std::string out() const { return content_of(scratch_ / "out"); }
  std::string err() const { return content_of(scratch_ / "err"); }
  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  void type(char key) const { REQUIRE(::write(terminal_, &key, 1) == 1); }
  /// The process whose id a rank wrote to $HERE/NAME.
  pid_t process(const std::string& name) const {
    REQUIRE(soon([&] { return contains(content_of(scratch_ / name), "\n"); }));
    return std::stoi(content_of(scratch_ / name));
  }
  bool prints(const std::string& text, int times = 1) const {
    return soon([&] { return count(out(), text) >= times; });
  }
  /// The exit code, or minus the signal.
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    if (reader_.joinable()) reader_.join();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  ScratchFolder scratch_;
  pid_t pid_ = -1;
  int terminal_ = -1;
  std::thread reader_;
};

Said launch(Words words) {
  words.insert(words.begin(), "launch");
  return holdfast_command(words);
}

/// A program that waits for signals; `on_signal` defines which, and what to do.
std::string patient(const std::string& on_signal) { return on_signal + "\necho ready; while :; do sleep 0.02; done"; }

}  // namespace

TEST_CASE("launch_tells_each_rank_who_it_is_and_where_to_meet") {
  const Said said = launch({"--nproc", "2", "sh", "-c",
                            "echo \"$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR $HOLDFAST_LAUNCH "
                            "$HOLDFAST_RESTART ${OMP_NUM_THREADS:+threads} ${HOLDFAST_PROGRESS:+progress}\""});
  CHECK(said.code == 0);
  CHECK(contains(said.out, "[0] 0/2 0/2 127.0.0.1 1 0 threads progress\n"));
  CHECK(contains(said.out, "[1] 1/2 1/2 127.0.0.1 1 0 threads progress\n"));
  CHECK(said.err.empty());

  const Said far =
      launch({"--nproc", "2", "--nnodes", "3", "--node-rank", "1", "--rendezvous", "[::1]:29500", "sh", "-c",
              "echo \"$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT "
              "${HOLDFAST_LISTEN_FD:-none}\""});
  CHECK(far.code == 0);
  CHECK(contains(far.out, "[2] 2/6 0/2 ::1 29500 none\n"));
  CHECK(contains(far.out, "[3] 3/6 1/2 ::1 29500 none\n"));
}

TEST_CASE("ranks_of_a_host_share_its_cores_unless_the_user_says_otherwise") {
  const std::string cores = "n=$(($(env -u OMP_NUM_THREADS nproc) / 2)); [ $n -gt 0 ] || n=1; ";
  ::unsetenv("OMP_NUM_THREADS");
  const Said shared = launch({"--nproc", "2", "sh", "-c", cores + "[ $OMP_NUM_THREADS = $n ] && echo a half"});
  CHECK(count(shared.out, "] a half\n") == 2);
  ::setenv("OMP_NUM_THREADS", "77", 1);
  const Said said = launch({"--nproc", "2", "sh", "-c", "echo $OMP_NUM_THREADS"});
  ::unsetenv("OMP_NUM_THREADS");
  CHECK(count(said.out, "] 77\n") == 2);
}

TEST_CASE("launch_hands_rank_0_a_socket_that_listens_and_nobody_else") {
  // Rank 0 waits for rank 1, because the socket listens only until rank 0 ends. The last line counts the rank's
  // descriptors beyond the first three, without those of launch's parent.
  ScratchFolder scratch;
  const std::string tried = (scratch / "tried").string();
  const Said said = launch({"--nproc", "2", "bash", "-c",
                            "if [ $RANK = 1 ]; then : <>/dev/tcp/127.0.0.1/$MASTER_PORT && echo connected; echo >" +
                                tried + "; else until [ -e " + tried + " ]; do sleep 0.05; done; fi;" +
                                "echo \"fd ${HOLDFAST_LISTEN_FD:-none}\";"
                                "echo sockets $(ls -l /proc/$$/fd | grep -c socket:)"});
  INFO(said.out << said.err);
  CHECK(said.code == 0);
  CHECK(contains(said.out, "[1] connected\n"));
  CHECK(contains(said.out, "[1] fd none\n"));
  CHECK(!contains(said.out, "[0] fd none\n"));
  std::map<char, int> sockets;
  for (const std::string& line : lines_of(said.out)) {
    if (line.substr(4, 8) == "sockets ") sockets[line[1]] = std::stoi(line.substr(12));
  }
  CHECK(sockets['0'] == sockets['1'] + 1);
}

TEST_CASE("ranks_meet_at_launch_however_launch_itself_was_started") {
  ::setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
  ::setenv("HOLDFAST_LISTEN_FD", "77", 1);
  const Said said =
      launch({"--nproc", "2", "sh", "-c", "echo ${TORCHELASTIC_USE_AGENT_STORE:-no} $HOLDFAST_LISTEN_FD"});
  ::unsetenv("TORCHELASTIC_USE_AGENT_STORE");
  ::unsetenv("HOLDFAST_LISTEN_FD");
  CHECK(count(said.out, "] no") == 2);
  CHECK(!contains(said.out, "77"));
}

TEST_CASE("too_few_open_files_for_so_many_ranks_are_said") {
  ScratchFolder scratch;
  const std::string err = (scratch / "err").string();
  const int status =
      std::system(("ulimit -n 32; " + program_beside("holdfast") + " launch --nproc 40 true 2>" + err).c_str());
  CHECK(WEXITSTATUS(status) == 3);
  CHECK(contains(content_of(err), "rank "));
  CHECK(contains(content_of(err), "(ulimit -n says how many files may be open here): Too many open files"));
}

TEST_CASE("lines_of_ranks_are_whole_and_none_is_lost_however_slow_the_reader") {
  ScratchFolder scratch;
  const std::string out = (scratch / "out").string();
  const std::string command = program_beside("holdfast") + " launch --nproc 3 " + program_beside("chatter");
  int lines = 0, length = 0;
  SECTION("many") { lines = 6000, length = 300; }
  SECTION("long") { lines = 3, length = 1'500'000; }
  const int status = std::system((command + " " + std::to_string(lines) + " " + std::to_string(length) +
                                  " | (sleep 0.3; cat) >" + out + "; exit ${PIPESTATUS:-0}")
                                     .c_str());
  CHECK(status == 0);
  std::map<char, int> next;
  const std::string body = std::string(static_cast<std::size_t>(length), 'x') + ".";
  bool whole = true;
  for (const std::string& line : lines_of(content_of(out))) {
    if (line.size() < 2) {
      whole = false;
      break;
    }
    const char rank = line[1];
    const std::string expected =
        std::string("[") + rank + "] " + rank + ":" + std::to_string(next[rank]++) + ":" + body;
    whole = whole && line == expected;
  }
  CHECK(whole);
  CHECK(next == std::map<char, int>{{'0', lines}, {'1', lines}, {'2', lines}});
}

TEST_CASE("standard_error_stays_standard_error_and_one_rank_has_no_prefix") {
  const Said two = launch({"--nproc", "2", "sh", "-c", "echo to out; echo to err >&2"});
  CHECK(count(two.out, "] to out\n") == 2);
  CHECK(count(two.err, "] to err\n") == 2);
  CHECK(!contains(two.out, "err"));
  const Said one = launch({"--nproc", "1", "sh", "-c", "printf '10 %%\\r20 %%\\r'; printf rest; echo to err >&2"});
  CHECK(one.out == "10 %\r20 %\rrest");
  CHECK(one.err == "to err\n");
}

TEST_CASE("one_rank_on_a_terminal_has_the_terminal") {
  Launch launch({"--nproc", "1", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo it is mine"}, true);
  CHECK(launch.wait() == 0);
  CHECK(launch.out() == "it is mine\r\n");
}

TEST_CASE("a_progress_line_of_rank_0_stays_at_the_bottom_of_a_terminal") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "await() { while [ ! -e $HERE/$1 ]; do sleep 0.01; done; }; "
                 "if [ $RANK = 0 ]; then printf '\\r10 %%'; await ended; printf '\\rdone\\n'; "
                 "else await shown; echo hello; await ended; fi"},
                true);
  CHECK(launch.prints("[0] 10 %"));
  write_file(launch.folder() + "/shown", "");
  CHECK(launch.prints("hello"));
  write_file(launch.folder() + "/ended", "");
  CHECK(launch.wait() == 0);
  CHECK(launch.out() == "[0] 10 %\r\x1b[K[1] hello\r\n[0] 10 %\r\x1b[K[0] done\r\n");
}

TEST_CASE("ctrl_c_reaches_each_rank_once") {
  const std::string rank = patient("n=0; trap 'n=$((n+1)); echo \"int $n\"; [ $n = 2 ] && exit 75' INT");
  const std::string nproc = GENERATE("1", "2");
  const bool on_terminal = GENERATE(true, false);
  const int ranks = std::stoi(nproc);
  Launch launch({"--nproc", nproc, "sh", "-c", rank}, on_terminal);
  const auto interrupt = [&] { on_terminal ? launch.type('\x03') : launch.signal(SIGINT); };
  REQUIRE(launch.prints("ready", ranks));
  interrupt();
  CHECK(launch.prints("int 1", ranks));
  std::this_thread::sleep_for(100ms);  // a second one would arrive within this time
  CHECK(!contains(launch.out(), "int 2"));
  interrupt();
  CHECK(launch.wait() == 75);
  CHECK(count(launch.out(), "int 2") == ranks);
}

TEST_CASE("who_presses_ctrl_c_twice_is_not_kept_waiting_by_ranks_that_are_deaf_to_it") {
  Launch launch({"--nproc", "2", "--grace", "200ms", "sh", "-c", patient("trap '' INT TERM")});
  REQUIRE(launch.prints("ready", 2));
  launch.signal(SIGINT);
  std::this_thread::sleep_for(100ms);
  launch.signal(SIGINT);
  CHECK(soon([&] { return is_gone(launch.pid()); }));
  CHECK(launch.wait() == 128 + SIGKILL);
}

TEST_CASE("a_rank_that_stands_still_hears_sigterm_too") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "[ $RANK = 1 ] && trap 'echo woken; exit 75' TERM && echo $$ >$HERE/still && kill -STOP $$; "
                 "echo ready; sleep 0.1; while :; do sleep 0.02; done"});
  const pid_t still = launch.process("still");
  CHECK(soon([&] { return state_of(still) == 'T'; }));
  CHECK(launch.prints("ready"));
  launch.signal(SIGTERM);
  CHECK(launch.prints("woken"));
  CHECK(launch.wait() == 128 + SIGTERM);
}

TEST_CASE("signals_are_passed_on_to_every_rank") {
  Launch launch(
      {"--nproc", "2", "sh", "-c",
       patient("trap 'echo usr1' USR1; trap 'echo usr2' USR2; trap 'echo hup' HUP; trap 'echo term; exit 75' TERM")});
  REQUIRE(launch.prints("ready", 2));
  for (const auto& [number, name] : {std::pair(SIGUSR1, "usr1"), {SIGUSR2, "usr2"}, {SIGHUP, "hup"}}) {
    launch.signal(number);
    CHECK(launch.prints(name, 2));
  }
  launch.signal(SIGTERM);
  CHECK(launch.wait() == 75);
  CHECK(count(launch.out(), "term") == 2);
}

TEST_CASE("a_hangup_that_the_starter_ignores_is_no_request_to_stop") {
  Launch launch(
      {"--nproc", "2", "--max-restarts", "1", "--backoff", "1ms", "sh", "-c",
       "[ $HOLDFAST_RESTART = 1 ] && exit 0; echo ready; while [ ! -e $HERE/go ]; do sleep 0.01; done; exit 3"},
      false, true);
  REQUIRE(launch.prints("ready", 2));
  launch.signal(SIGHUP);
  write_file(launch.folder() + "/go", "");
  CHECK(launch.wait() == 0);  // if it were asked to stop, it would not start them again
}

TEST_CASE("ranks_stand_still_and_go_on_with_launch") {
  Launch launch({"--nproc", "2", "sh", "-c", "echo $$ >$HERE/$RANK; exec sleep 600"});
  const pid_t ranks[] = {launch.process("0"), launch.process("1")};
  const auto all = [&](bool stopped) {
    return (state_of(launch.pid()) == 'T') == stopped && (state_of(ranks[0]) == 'T') == stopped &&
           (state_of(ranks[1]) == 'T') == stopped;
  };
  launch.signal(SIGTSTP);
  CHECK(soon([&] { return all(true); }));
  launch.signal(SIGCONT);
  CHECK(soon([&] { return all(false); }));
  launch.signal(SIGTERM);
  CHECK(launch.wait() == 128 + SIGTERM);
}

TEST_CASE("launch_leaves_no_process_behind_when_it_is_killed") {
  // A child in a session of its own that ignores SIGTERM, and a rank that ignores it too. A rank with an emptied
  // environment must not survive either.
  Launch launch({"--nproc", "3", "bash", "-c",
                 "[ $RANK = 2 ] && echo $$ >$HERE/bare && exec env -i sleep 600; "
                 "trap '' TERM; setsid bash -c 'echo $$ >$HERE/child$RANK; exec sleep 600' & "
                 "(sleep 600 & echo $! >$HERE/orphan$RANK); echo $$ >$HERE/rank$RANK; while :; do sleep 600; done"});
  std::vector<pid_t> pids;
  for (const std::string name : {"child0", "child1", "orphan0", "orphan1", "rank0", "rank1", "bare"}) {
    pids.push_back(launch.process(name));
  }
  launch.signal(SIGKILL);
  CHECK(launch.wait() == -SIGKILL);
  for (const pid_t pid : pids) CHECK(soon([&] { return is_gone(pid); }));
  // The temporary folder is removed last.
  CHECK(soon([&] { return !has_temporary_folder(launch.folder()); }));
}

TEST_CASE("a_guard_that_somebody_ended_is_replaced") {
  Launch launch({"--nproc", "1", "bash", "-c", "setsid sleep 600 & echo $! >$HERE/away; wait"});
  const pid_t away = launch.process("away");
  const auto guard = [&] {
    const std::string pid = std::to_string(launch.pid());
    std::istringstream children(content_of("/proc/" + pid + "/task/" + pid + "/children"));
    for (pid_t child = 0; children >> child;) {
      if (content_of("/proc/" + std::to_string(child) + "/comm") == "launch-guard\n") return child;
    }
    return pid_t{0};
  };
  REQUIRE(soon([&] { return guard() > 0; }));
  const pid_t first = guard();
  ::kill(first, SIGKILL);
  CHECK(soon([&] { return guard() > 0 && guard() != first; }));
  launch.signal(SIGKILL);
  CHECK(launch.wait() == -SIGKILL);
  CHECK(soon([&] { return is_gone(away); }));
}

TEST_CASE("a_launch_inside_a_launch_that_is_killed_leaves_nothing_behind_either") {
  Launch launch({"--nproc", "1", "--", program_beside("holdfast"), "launch", "--nproc", "2", "bash", "-c",
                 "setsid sleep 600 & echo $! >$HERE/away$RANK; wait"});
  const pid_t away[] = {launch.process("away0"), launch.process("away1")};
  launch.signal(SIGKILL);
  CHECK(launch.wait() == -SIGKILL);
  for (const pid_t pid : away) CHECK(soon([&] { return is_gone(pid); }));
  CHECK(soon([&] { return !has_temporary_folder(launch.folder()); }));
}

TEST_CASE("what_a_rank_started_ends_with_it") {
  Launch launch(
      {"--nproc", "2", "bash", "-c",
       "trap '' TERM; sleep 600 & echo $! >$HERE/child$RANK; setsid sleep 600 & echo $! >$HERE/away$RANK; exit 0"});
  const auto begin = std::chrono::steady_clock::now();
  CHECK(launch.wait() == 0);
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
  for (const std::string name : {"child0", "child1", "away0", "away1"}) CHECK(is_gone(launch.process(name)));
}

TEST_CASE("what_a_failed_rank_started_ends_while_the_others_go_on") {
  // The child could hold open a connection whose end the others wait for.
  Launch launch({"--nproc", "2", "sh", "-c",
                 "if [ $RANK = 1 ]; then sleep 600 & echo $! >$HERE/child; exit 3; fi; " + patient("")});
  const pid_t child = launch.process("child");
  const auto begin = std::chrono::steady_clock::now();
  CHECK(soon([&] { return is_gone(child); }));
  CHECK(std::chrono::steady_clock::now() - begin < 4s);  // after five the others are asked to stop
  launch.signal(SIGTERM);
  CHECK(launch.wait() == 3);
}

TEST_CASE("a_child_of_a_rank_that_was_told_to_stop_may_finish") {
  // sh ends at the signal; the process that it had started is still saving.
  Launch launch(
      {"--nproc", "2", "sh", "-c",
       "(trap 'sleep 0.2; echo saved' TERM; echo ready; while :; do sleep 0.02; [ -e $HERE/end ] && exit; done) "
       "& wait"});
  REQUIRE(launch.prints("ready", 2));
  launch.signal(SIGTERM);
  CHECK(launch.prints("saved", 2));
  write_file(launch.folder() + "/end", "");
  CHECK(launch.wait() == 128 + SIGTERM);
}

TEST_CASE("after_a_failure_the_others_get_five_seconds_then_sigterm_then_sigkill") {
  Launch launch({"--nproc", "4", "--grace", "300ms", "bash", "-c",
                 "case $RANK in "
                 "0) trap 'echo told; exit 0' TERM;; "
                 "1) trap '' TERM;; "
                 "2) sleep 0.5; echo 'I lost a peer' >&2; exit 1;; "
                 "3) echo too late >&2; kill -SEGV $$;; esac; "
                 "echo $$ >$HERE/$RANK; while :; do sleep 0.02; done"});
  const pid_t deaf = launch.process("1");
  const auto begin = std::chrono::steady_clock::now();
  const int code = launch.wait();
  const auto took = std::chrono::steady_clock::now() - begin;
  CHECK(code == 128 + SIGSEGV);
  CHECK(took > 4500ms);
  CHECK(took < 15s);
  CHECK(is_gone(deaf));
  CHECK(count(launch.out(), "[0] told\n") == 1);
  INFO(launch.err());
  CHECK(contains(launch.err(), "[2] I lost a peer\n"));
  const std::string end =
      "holdfast launch: the last line of rank 3 on standard error:\n[3] too late\n"
      "holdfast launch: rank 3 failed first: ended by SIGSEGV\n";
  REQUIRE(launch.err().size() > end.size());
  CHECK(launch.err().substr(launch.err().size() - end.size()) == end);
}

TEST_CASE("nobody_is_told_to_stop_for_the_time_in_which_all_stood_still") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "if [ $RANK = 1 ]; then until [ -e $HERE/go ]; do sleep 0.01; done; exit 3; fi; " +
                     patient("trap 'echo told; exit 0' TERM")});
  REQUIRE(launch.prints("ready"));
  write_file(launch.folder() + "/go", "");
  std::this_thread::sleep_for(500ms);  // during the five seconds after the failure
  launch.signal(SIGTSTP);
  REQUIRE(soon([&] { return state_of(launch.pid()) == 'T'; }));
  std::this_thread::sleep_for(5s);
  launch.signal(SIGCONT);
  std::this_thread::sleep_for(1s);
  CHECK_FALSE(contains(launch.out(), "told"));
}

TEST_CASE("of_failures_seen_together_one_by_a_signal_is_the_first") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "echo $$ >$HERE/$RANK; until [ -e $HERE/go ]; do sleep 0.01; done; "
                 "[ $RANK = 0 ] && exit 1; kill -SEGV $$"});
  const pid_t ranks[] = {launch.process("0"), launch.process("1")};
  launch.signal(SIGSTOP);
  REQUIRE(soon([&] { return state_of(launch.pid()) == 'T'; }));
  write_file(launch.folder() + "/go", "");
  for (const pid_t rank : ranks) REQUIRE(soon([&] { return is_gone(rank); }));
  launch.signal(SIGCONT);
  CHECK(launch.wait() == 128 + SIGSEGV);
}

TEST_CASE("how_launch_was_started_changes_nothing_of_what_it_sees") {
  ScratchFolder scratch;
  const auto code = [&](const std::string& before, const std::string& words, const std::string& after) {
    write_file(scratch / "start", before + "exec " + program_beside("holdfast") + " launch --nproc 2 " + words + after);
    return WEXITSTATUS(std::system(("timeout -s KILL 20 bash " + (scratch / "start").string()).c_str()));
  };
  CHECK(code("trap '' CHLD; ", "sh -c '[ $RANK = 0 ] || exit 3'", " 2>/dev/null") == 3);
  // No standard streams: what launch reports about the first failure must not reach files that it opened for itself.
  const std::string logs = (scratch / "logs").string();
  CHECK(code("",
             "--max-restarts 1 --backoff 100ms --logs " + logs +
                 " sh -c 'echo hi; [ $HOLDFAST_RESTART = 1 ] || exit 3; sleep 0.5; echo there'",
             " <&- >&- 2>&-") == 0);
  for (const std::string rank : {"0", "1"}) {
    const std::string log = content_of(logs + "/rank-" + rank + ".log");
    CHECK(contains(log, "hi\nthere\n"));
    CHECK_FALSE(contains(log, "holdfast launch"));
  }
}

TEST_CASE("the_first_failure_is_shown_last_with_its_last_twenty_lines") {
  const Said said = launch({"--nproc", "2", "sh", "-c",
                            "if [ $RANK = 1 ]; then seq 1 30 >&2; printf 'and no newline' >&2; exit 9; fi; "
                            "sleep 0.3; echo peer gone >&2; exit 1"});
  CHECK(said.code == 9);
  const auto lines = lines_of(said.err);
  REQUIRE(lines.size() == 31 + 1 + 22);
  CHECK(lines[32] == "holdfast launch: the last 20 lines of rank 1 on standard error:");
  CHECK(lines[33] == "[1] 12");
  CHECK(lines[52] == "[1] and no newline");
  CHECK(lines[53] == "holdfast launch: rank 1 failed first: exit code 9");
}

TEST_CASE("exit_codes_0_and_75_are_no_failures") {
  CHECK(launch({"--nproc", "3", "sh", "-c", "exit 0"}).code == 0);
  const Said said = launch({"--nproc", "3", "--max-restarts", "3", "sh", "-c", "[ $RANK = 1 ] && exit 75; exit 0"});
  CHECK(said.code == 75);
  CHECK(said.err.empty());
  CHECK(said.out.empty());
}

TEST_CASE("ranks_are_started_again_after_a_failure") {
  const Said said = launch({"--nproc", "2", "--max-restarts", "2", "--backoff", "10ms", "sh", "-c",
                            "echo \"start $HOLDFAST_RESTART\"; [ $HOLDFAST_RESTART = 2 ] || exit 3"});
  CHECK(said.code == 0);
  for (const std::string rank : {"0", "1"}) {
    for (const std::string start : {"0", "1", "2"}) CHECK(contains(said.out, "[" + rank + "] start " + start + "\n"));
  }
  CHECK(contains(said.err, "exit code 3; restart 1 of 2 in 0.01 s\n"));
  CHECK(contains(said.err, "exit code 3; restart 2 of 2 in 0.02 s\n"));
}

TEST_CASE("restarts_end_where_they_are_used_up_or_useless") {
  const Words often = {"--nproc", "2", "--max-restarts", "9", "--backoff", "1ms", "sh", "-c"};
  const auto with = [&](const std::string& script) {
    Words words = often;
    words.push_back(script);
    return launch(words);
  };
  const Said loop = with("exit 3");
  CHECK(loop.code == 70);
  CHECK(contains(loop.err, "not restarted: 3 failures in a row without a newer saved step; exit code 70\n"));
  CHECK(count(loop.err, "failed first") == 3);

  // Two steps are saved in the first two starts; none later.
  const Said stuck =
      with("[ $RANK = 0 ] && [ $HOLDFAST_RESTART -lt 2 ] && echo 10$HOLDFAST_RESTART >$HOLDFAST_PROGRESS; exit 3");
  CHECK(stuck.code == 70);
  CHECK(count(stuck.err, "failed first") == 5);
  CHECK(contains(stuck.err, "without a newer saved step than 101;"));

  const Said going = with("[ $RANK = 0 ] && echo $HOLDFAST_RESTART >$HOLDFAST_PROGRESS; exit 3");
  CHECK(going.code == 3);
  CHECK(contains(going.err, "not restarted: all 9 restarts of --max-restarts are used\n"));
  CHECK(count(going.err, "failed first") == 10);

  for (const int useless : {64, 69}) {
    const Said once = with("exit " + std::to_string(useless));
    CHECK(once.code == useless);
    CHECK(count(once.err, "failed first") == 1);
  }
}

TEST_CASE("who_is_told_to_stop_starts_nothing_again") {
  SECTION("while ranks run") {
    Launch launch({"--nproc", "2", "--max-restarts", "5", "--backoff", "1ms", "sh", "-c", patient("")});
    REQUIRE(launch.prints("ready", 2));
    launch.signal(SIGTERM);
    CHECK(launch.wait() == 128 + SIGTERM);
    CHECK(count(launch.out(), "ready") == 2);
  }
  SECTION("in the pause before a restart") {
    Launch launch({"--nproc", "2", "--max-restarts", "5", "--backoff", "10min", "sh", "-c", "exit 3"});
    REQUIRE(soon([&] { return contains(launch.err(), "restart 1 of 5 in 600 s"); }));
    launch.signal(SIGTERM);
    CHECK(launch.wait() == 75);
  }
}

TEST_CASE("logs_are_a_file_for_each_rank_and_are_appended_to") {
  ScratchFolder scratch;
  const std::string logs = (scratch / "deep/logs").string();
  for (int i = 0; i < 2; ++i) {
    const Said said = launch({"--nproc", "2", "--logs", logs, "sh", "-c",
                              "echo I am $RANK; [ $RANK = 1 ] && echo alas >&2 && exit 4; exit 0"});
    CHECK(said.code == 4);
    CHECK(said.out.empty());
    CHECK(said.err == "holdfast launch: the last 2 lines of rank 1 in " + logs +
                          "/rank-1.log:\n[1] I am 1\n[1] alas\nholdfast launch: rank 1 failed first: exit code 4\n");
  }
  CHECK(count(content_of(logs + "/rank-0.log"), "I am 0\n") == 2);
  CHECK(count(content_of(logs + "/rank-1.log"), "alas\n") == 2);
  CHECK(count(content_of(logs + "/rank-0.log"), "---- start 0 of rank 0 at ") == 2);
}

TEST_CASE("ranks_go_on_when_the_reader_of_their_output_leaves") {
  ScratchFolder scratch;
  const std::string told = (scratch / "told").string(), ends = (scratch / "ends").string();
  const std::string rank = "trap 'echo told >>" + told +
                           "' TERM PIPE; for i in \\$(seq 200); do echo more; sleep 0.01; " + "done; echo end >>" +
                           ends;
  const std::string nproc = GENERATE("1", "2");
  const std::string code = (scratch / "code").string(), err = (scratch / "err").string();
  const bool also_errors = GENERATE(false, true);
  const int status =
      std::system(("(" + program_beside("holdfast") + " launch --nproc " + nproc + " sh -c \"" + rank + "\" 2>" +
                   (also_errors ? "&1" : err) + "; echo $? >" + code + ") | head -n 3 >/dev/null")
                      .c_str());
  CHECK(status == 0);
  CHECK(content_of(code) == "0\n");
  CHECK(content_of(told).empty());
  CHECK(count(content_of(ends), "end\n") == std::stoi(nproc));
  if (!also_errors) CHECK(contains(content_of(err), "the reader of standard output is gone; the ranks continue"));
}

TEST_CASE("a_bar_that_rewrites_its_line_is_seen_while_it_moves_where_no_terminal_shows_it") {
  Launch launch({"--nproc", "2", "sh", "-c",
                 "printf '\\r10 %%'; printf '\\r20 %%'; i=0; until [ -e $HERE/end ]; do i=$((i+1)); printf '\\r30 %%'; "
                 "printf \"\\ri=$i\"; sleep 0.01; done; printf '\\r100 %%\\n'; printf 'windows\\r\\n'"});
  CHECK(launch.prints("[0] 30 %\n"));
  CHECK(launch.prints("[1] 30 %\n"));
  CHECK(launch.prints("[0] ", 4));
  write_file(launch.folder() + "/end", "");
  CHECK(launch.wait() == 0);
  for (const std::string rank : {"[0] ", "[1] "}) {
    CHECK(contains(launch.out(), rank + "100 %\n" + rank + "windows\n"));
    // Far fewer lines than updates.
    CHECK(count(launch.out(), rank + "i=") + count(launch.out(), rank + "30 %") < 60);
  }
}

TEST_CASE("a_line_without_an_end_does_not_fill_the_memory") {
  const Said said = launch({"--nproc", "2", "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x"});
  std::size_t longest = 0, bytes = 0;
  for (const std::string& line : lines_of(said.out)) {
    longest = std::max(longest, line.size());
    bytes += line.size() - 4;
  }
  CHECK(longest < 3'000'000);
  CHECK(bytes == 10'000'000);
}

TEST_CASE("a_program_that_cannot_be_started_is_named_with_the_nearest_that_can") {
  ScratchFolder scratch;
  const std::string here = scratch.path().string();
  write_file(scratch / "train", "#!/bin/sh\nexit 0\n");
  write_file(scratch / "train.py", "print(1)\n");
  write_file(scratch / "broken", "#!/no/such/interpreter\n");
  for (const char* name : {"train", "broken"}) ::chmod((here + "/" + name).c_str(), 0755);
  const auto said = [&](const std::string& program) {
    return holdfast_command({"launch", "--nproc", "2", program}, {.folder = here});
  };
  CHECK(said("./train").code == 0);
  CHECK(said("./trian").code == 127);
  CHECK(said("./trian").err == "holdfast launch: there is no program \"./trian\"; did you mean ./train?\n");
  CHECK(said("train").err == "holdfast launch: there is no program \"train\"; did you mean ./train?\n");
  CHECK(said("./train.py").code == 126);
  CHECK(contains(said("./train.py").err, "python3 ./train.py"));
  CHECK(said(here).code == 126);
  CHECK(contains(said(here).err, "is a folder, not a program"));
  CHECK(contains(said("./broken").err, "interpreter"));
}

TEST_CASE("a_wrong_command_line_of_launch_gets_one_sentence") {
  const std::vector<std::pair<Words, std::string>> mistakes = {
      {{}, "there is no program to start"},
      {{"--nproc", "2"}, "there is no program to start"},
      {{"--nproc", "0", "x"}, "--nproc is auto or a number from 1 to 9999, not \"0\""},
      {{"--nporc", "2", "x"}, "did you mean --nproc?"},
      {{"--holdfast.every", "5", "x"}, "--holdfast.every is an option of the program: put it behind the program"},
      {{"./train", "--nproc", "2"}, "--nproc comes after the program, so ./train would get it"},
      {{"--nnodes", "2", "x"}, "needs --node-rank"},
      {{"--nnodes", "2", "--node-rank", "1", "x"}, "needs --rendezvous HOST:PORT"},
      {{"--nnodes", "2", "--node-rank", "2", "x"}, "nodes count from 0"},
      {{"--rendezvous", "node0", "x"}, "--rendezvous is HOST:PORT, such as node0:29500, not \"node0\""},
      {{"--max-restarts", "-1", "x"}, "--max-restarts is not below 0"},
      {{"--grace", "3", "x"}, "--grace is a time such as 500ms, 30s, 2min or 1h, not \"3\""},
  };
  for (const auto& [words, sentence] : mistakes) {
    const Said said = launch(words);
    INFO(said.err);
    CHECK(said.code == 2);
    CHECK(contains(said.err, sentence));
    CHECK(count(said.err, "\n") == 1);
  }
  CHECK(launch({"--", "sh", "-c", "echo $0", "--nproc"}).out == "--nproc\n");
  const Said help = launch({"--help"});
  CHECK(help.code == 0);
  CHECK(contains(help.out, "Example:\n  holdfast launch "));
  CHECK(contains(help.out, "Exit codes:\n  0  "));
}
