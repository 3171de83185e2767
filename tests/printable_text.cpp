// What strangers write is drawn, never obeyed.
#include <doctest/doctest.h>

#include <chrono>
#include <instance_guard/detail/age_text.hpp>
#include <instance_guard/detail/printable_text.hpp>

using instance_guard::detail::age_text;
using instance_guard::detail::escaped;
using instance_guard::detail::printable;
using namespace std::chrono_literals;

TEST_CASE("plain text and UTF-8 stay as they are") {
  CHECK(printable("shiva --fast 'x'") == "shiva --fast 'x'");
  CHECK(printable("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x91\xbb") == "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x91\xbb");
}

TEST_CASE("nothing that a terminal obeys gets through") {
  CHECK(printable("a\nb\x1b[31m\x7f") == "a?b?[31m?");
  CHECK(printable("\xc2\x9b"
                  "31m") == "??31m");  // CSI, as UTF-8
  CHECK(printable("\x9b"
                  "31m") == "?31m");                        // CSI, as one byte
  CHECK(printable("\xe2\x80\xaegpj.exe") == "???gpj.exe");  // right-to-left override
}

TEST_CASE("what hides in a name is told by its bytes") {
  CHECK(escaped("bot\xe2\x80\x8b") == "bot\\xe2\\x80\\x8b");  // zero width space
  CHECK(escaped("\xef\xbb\xbf"
                "bot") ==
        "\\xef\\xbb\\xbf"
        "bot");                                               // byte order mark
  CHECK(escaped("b\xc2\xadot") == "b\\xc2\\xadot");           // soft hyphen
  CHECK(escaped("b\xe2\x81\xa0ot") == "b\\xe2\\x81\\xa0ot");  // word joiner
}

TEST_CASE("broken UTF-8 is one question mark a byte") {
  CHECK(printable("\xff\xfe") == "??");
  CHECK(escaped("a\nb\x1b[31m\xff") == "a\\x0ab\\x1b[31m\\xff");
  CHECK(escaped("\xc3\xa9") == "\xc3\xa9");
  CHECK(printable("\xc3") == "?");
  CHECK(printable("\xc0\xaf") == "??");  // overlong '/'
  CHECK(printable("\xe0\x80\xaf") == "???");
  CHECK(printable("\xed\xa0\x80") == "???");       // surrogate
  CHECK(printable("\xf4\x90\x80\x80") == "????");  // beyond Unicode
  CHECK(printable("\xe2\x82 x") == "?? x");
}

TEST_CASE("an age is its two largest units") {
  CHECK(age_text(0s) == "0s");
  CHECK(age_text(-5s) == "0s");
  CHECK(age_text(59s) == "59s");
  CHECK(age_text(60s) == "1m");
  CHECK(age_text(61s) == "1m 1s");
  CHECK(age_text(2h + 5s) == "2h");
  CHECK(age_text(7 * 24h + 2h, "") == "7d2h");
}
