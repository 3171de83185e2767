// instance-guard-post: reads an address, then one JSON payload a line, and posts them in turn.
//
// Everything comes by stdin: an address that lets everybody post belongs on no command line. One
// that fails for a reason that may go by (no connection, 429, 5xx) is tried again, three times in
// all; a server may ask for up to 20 s of patience. Exit code 0: all are posted; 1: what went wrong
// is on stderr, without the address.
#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

namespace {

struct answer {
  CURLcode transport = CURLE_OK;
  long status = 0;
  long wait_seconds = 0;

  bool good() const { return transport == CURLE_OK && status >= 200 && status < 300; }
  bool worth_another_try() const {
    return transport != CURLE_OK ? transport != CURLE_UNSUPPORTED_PROTOCOL && transport != CURLE_URL_MALFORMAT &&
                                       transport != CURLE_PEER_FAILED_VERIFICATION
                                 : status == 429 || status >= 500;
  }
  std::string text() const {
    return transport != CURLE_OK ? curl_easy_strerror(transport) : "the server answered " + std::to_string(status);
  }
};

std::size_t drop(char*, std::size_t size, std::size_t count, void*) { return size * count; }

answer post(CURL* connection, const std::string& payload) {
  answer result;
  curl_easy_setopt(connection, CURLOPT_POSTFIELDS, payload.c_str());
  curl_easy_setopt(connection, CURLOPT_POSTFIELDSIZE, static_cast<long>(payload.size()));
  result.transport = curl_easy_perform(connection);
  curl_easy_getinfo(connection, CURLINFO_RESPONSE_CODE, &result.status);
  curl_off_t wait = 0;
  curl_easy_getinfo(connection, CURLINFO_RETRY_AFTER, &wait);
  result.wait_seconds = static_cast<long>(std::min<curl_off_t>(wait, 20));
  return result;
}

}  // namespace

int main() {
  std::string address;
  if (!std::getline(std::cin, address) || address.empty()) return 2;
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return 1;
  CURL* connection = curl_easy_init();
  if (connection == nullptr) return 1;
  curl_slist* headers = curl_slist_append(nullptr, "Content-Type: application/json");
  curl_easy_setopt(connection, CURLOPT_URL, address.c_str());
  curl_easy_setopt(connection, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(connection, CURLOPT_WRITEFUNCTION, drop);
  curl_easy_setopt(connection, CURLOPT_CONNECTTIMEOUT, 5L);
  curl_easy_setopt(connection, CURLOPT_TIMEOUT, 10L);
  curl_easy_setopt(connection, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(connection, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(connection, CURLOPT_USERAGENT, "instance-guard");
  // Plain http is for a server on this machine only: the address is a secret.
  const bool local = address.rfind("http://127.0.0.1:", 0) == 0 || address.rfind("http://localhost:", 0) == 0;
#if CURL_AT_LEAST_VERSION(7, 85, 0)
  curl_easy_setopt(connection, CURLOPT_PROTOCOLS_STR, local ? "http" : "https");
#else
  curl_easy_setopt(connection, CURLOPT_PROTOCOLS, local ? CURLPROTO_HTTP : CURLPROTO_HTTPS);
#endif
  for (std::string payload; std::getline(std::cin, payload);) {
    answer result;
    for (int tries = 1;; ++tries) {
      result = post(connection, payload);
      if (result.good() || !result.worth_another_try() || tries == 3) break;
      std::this_thread::sleep_for(std::chrono::seconds(std::max(result.wait_seconds, 1L)));
    }
    if (!result.good()) {
      std::fprintf(stderr, "%s\n", result.text().c_str());
      return 1;
    }
  }
  curl_slist_free_all(headers);
  curl_easy_cleanup(connection);
  return 0;
}
