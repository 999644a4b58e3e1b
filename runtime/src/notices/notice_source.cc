#include "notices/notice_source.h"

#include <fmt/format.h>

#include <utility>

#include "holdfast/storage/text/text.h"

namespace holdfast {
namespace {

using namespace std::chrono_literals;
using storage::Result;
using storage::Status;
using storage::StatusCode;

constexpr const char* kAddress = "http://169.254.169.254";  // of all three clouds
constexpr auto kPatience = 5s;

Status unexpected(const std::string& path, const MetadataAnswer& answer) {
  return {StatusCode::unreadable, fmt::format("{}: status {}{}", path, answer.status,
                                              answer.body.empty() ? "" : ", " + storage::excerpt(answer.body))};
}

// EC2 User Guide, "Use the Instance Metadata Service" (version 2: requests need a token), and "Spot Instance
// interruption notices" (404 until there is one, then two minutes; to be read every five seconds or more often).
class Ec2 final : public NoticeSource {
 public:
  explicit Ec2(std::string base) : NoticeSource(std::move(base)) {}
  std::string title() const override { return "EC2"; }
  std::chrono::milliseconds pause() const override { return 2s; }

  Result<Notice> ask() override {
    constexpr const char* kPath = "/latest/meta-data/spot/instance-action";
    // A token that has expired is refused with 401.
    for (int attempt = 0;; ++attempt) {
      if (Status status = get_token(); !status.ok()) return status;
      auto answer = client_.get(kPath, {"X-aws-ec2-metadata-token: " + token_}, kPatience);
      if (!answer) return answer.status();
      if (answer->status == 200) return ec2_notice(answer->body);
      if (answer->status == 404) return Notice();
      token_.clear();
      if (answer->status != 401 || attempt == 1) return unexpected(kPath, *answer);
    }
  }

 private:
  Status get_token() {
    constexpr const char* kPath = "/latest/api/token";
    if (!token_.empty()) return {};
    auto answer = client_.put(kPath, {"X-aws-ec2-metadata-token-ttl-seconds: 21600"}, kPatience);
    if (!answer) {
      return {StatusCode::unreadable,
              answer.status().message() +
                  " (in a container the instance needs a hop limit of 2: aws ec2 modify-instance-metadata-options "
                  "--http-put-response-hop-limit 2)"};
    }
    if (answer->status != 200 || answer->body.empty()) return unexpected(kPath, *answer);
    token_ = std::move(answer->body);
    return {};
  }

  std::string token_;
};

// Compute Engine, "About VM metadata": requests and answers carry the header Metadata-Flavor: Google; a request with
// wait_for_change returns when the value has changed since the answer with the ETag last_etag.
class Gce final : public NoticeSource {
 public:
  explicit Gce(std::string base) : NoticeSource(std::move(base)) {}
  std::string title() const override { return "Compute Engine"; }
  std::chrono::milliseconds pause() const override { return etag_.empty() ? 1000ms : 100ms; }

  Result<Notice> ask() override {
    constexpr const char* kPath = "/computeMetadata/v1/instance/preempted";
    const std::string wait = etag_.empty() ? "" : "?wait_for_change=true&timeout_sec=25&last_etag=" + etag_;
    etag_.clear();
    auto answer = client_.get(kPath + wait, {"Metadata-Flavor: Google"}, kPatience + 25s);
    if (!answer) return answer.status();
    const bool is_theirs = answer->headers["metadata-flavor"] == "Google";
    if (answer->status != 200 || !is_theirs) return unexpected(kPath, *answer);
    etag_ = answer->headers["etag"];
    return gce_notice(answer->body);
  }

 private:
  std::string etag_;  // of the last answer
};

// Azure, "Scheduled Events for Linux VMs": the first request of a machine may take two minutes; to be read every
// second. The events are those of the machine's group, and "Instance Metadata Service" gives this machine's name.
class Azure final : public NoticeSource {
 public:
  explicit Azure(std::string base) : NoticeSource(std::move(base)) {}
  std::string title() const override { return "Azure"; }
  std::chrono::milliseconds pause() const override { return 1s; }

  Result<Notice> ask() override {
    constexpr const char* kHeader = "Metadata: true";
    if (machine_.empty()) {
      constexpr const char* kName = "/metadata/instance/compute/name?api-version=2021-02-01&format=text";
      auto answer = client_.get(kName, {kHeader}, kPatience);
      if (!answer) return answer.status();
      if (answer->status != 200 || answer->body.empty()) return unexpected(kName, *answer);
      machine_ = std::move(answer->body);
    }
    constexpr const char* kEvents = "/metadata/scheduledevents?api-version=2020-07-01";
    auto answer = client_.get(kEvents, {kHeader}, has_answered_ ? kPatience : 150s);
    if (!answer) return answer.status();
    if (answer->status != 200) return unexpected(kEvents, *answer);
    has_answered_ = true;
    return azure_notice(answer->body, machine_);
  }

 private:
  std::string machine_;
  bool has_answered_ = false;
};

}  // namespace

std::unique_ptr<NoticeSource> notice_source(const std::string& cloud, const Surroundings& around) {
  const auto given = [&](const char* name) { return around.variable(name).value_or(""); };
  if (cloud == "ec2") {
    const std::string url = given("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    return std::make_unique<Ec2>(url.empty() ? kAddress : url);
  }
  if (cloud == "gce") {
    const std::string host = given("GCE_METADATA_HOST");
    return std::make_unique<Gce>(host.empty() ? kAddress : "http://" + host);
  }
  if (cloud == "azure") return std::make_unique<Azure>(kAddress);
  return nullptr;
}

}  // namespace holdfast
