#include "notices/metadata_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <memory>
#include <string_view>
#include <utility>

namespace holdfast {
namespace {

using storage::Status;
using storage::StatusCode;

constexpr std::size_t kMostAnswerBytes = 1 << 20;

std::size_t take_body(char* bytes, std::size_t size, std::size_t count, void* into) {
  std::string& body = static_cast<MetadataAnswer*>(into)->body;
  if (body.size() + size * count > kMostAnswerBytes) return 0;
  body.append(bytes, size * count);
  return size * count;
}

std::size_t take_header(char* bytes, std::size_t size, std::size_t count, void* into) {
  const std::string_view line(bytes, size * count);
  if (const auto colon = line.find(':'); colon != line.npos) {
    std::string name(line.substr(0, colon));
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    const auto begin = line.find_first_not_of(" \t", colon + 1);
    const auto end = line.find_last_not_of(" \t\r\n");
    static_cast<MetadataAnswer*>(into)->headers[name] =
        begin == line.npos || begin > end ? "" : line.substr(begin, end - begin + 1);
  }
  return line.size();
}

}  // namespace

MetadataClient::MetadataClient(std::string base) : base_(std::move(base)) {
  while (base_.ends_with('/')) base_.pop_back();
  ::curl_global_init(CURL_GLOBAL_DEFAULT);
  requests_ = ::curl_multi_init();
}

MetadataClient::~MetadataClient() {
  ::curl_multi_cleanup(requests_);
  ::curl_global_cleanup();
}

void MetadataClient::cancel() {
  cancelled_ = true;
  ::curl_multi_wakeup(requests_);
}

storage::Result<MetadataAnswer> MetadataClient::get(const std::string& path, const std::vector<std::string>& headers,
                                                    std::chrono::milliseconds patience) {
  return ask("GET", path, headers, patience);
}

storage::Result<MetadataAnswer> MetadataClient::put(const std::string& path, const std::vector<std::string>& headers,
                                                    std::chrono::milliseconds patience) {
  return ask("PUT", path, headers, patience);
}

storage::Result<MetadataAnswer> MetadataClient::ask(const char* method, const std::string& path,
                                                    const std::vector<std::string>& headers,
                                                    std::chrono::milliseconds patience) {
  const std::string url = base_ + path;
  const std::unique_ptr<CURL, void (*)(CURL*)> request(::curl_easy_init(), ::curl_easy_cleanup);
  if (!request || requests_ == nullptr) return Status(StatusCode::unreadable, "libcurl cannot start a request");
  curl_slist* lines = nullptr;
  for (const std::string& header : headers) lines = ::curl_slist_append(lines, header.c_str());
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> owned(lines, ::curl_slist_free_all);
  MetadataAnswer answer;
  CURL* const easy = request.get();
  ::curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  ::curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
  ::curl_easy_setopt(easy, CURLOPT_HTTPHEADER, lines);
  ::curl_easy_setopt(easy, CURLOPT_PROXY, "");
  ::curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  ::curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 2000L);
  ::curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(patience.count()));
  ::curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
  ::curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
  ::curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
  ::curl_easy_setopt(easy, CURLOPT_HEADERDATA, &answer);
  ::curl_multi_add_handle(requests_, easy);
  int running = 1;
  while (!cancelled_ && ::curl_multi_perform(requests_, &running) == CURLM_OK && running > 0) {
    ::curl_multi_poll(requests_, nullptr, 0, 1000, nullptr);
  }
  CURLcode result = CURLE_ABORTED_BY_CALLBACK;
  int queued = 0;
  if (const CURLMsg* const done = ::curl_multi_info_read(requests_, &queued)) result = done->data.result;
  ::curl_multi_remove_handle(requests_, easy);
  if (result != CURLE_OK) {
    return Status(StatusCode::unreadable, fmt::format("{} {}: {}", method, url, ::curl_easy_strerror(result)));
  }
  ::curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &answer.status);
  return answer;
}

}  // namespace holdfast
