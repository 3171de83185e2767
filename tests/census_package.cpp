// What package.json says of a directory, and files of that name that are not as they should be.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <instance_guard/detail/census_package.hpp>
#include <random>
#include <string>

#include "support/other_user.hpp"
#include "support/temporary_directory.hpp"

using namespace instance_guard::detail;
namespace fs = std::filesystem;

namespace {

/// "?": it can't be told.
std::string main_of(const std::string& text) {
  std::string main;
  return find_json_string(text, "main", main) ? main : "?";
}

std::string main_in(const support::temporary_directory& directory) {
  std::string main;
  const slow_places slow;
  return read_package_main(directory.path().string(), ::geteuid(), slow, main) ? main : "?";
}

}  // namespace

TEST_CASE("the main of a package is a string of its outermost object") {
  CHECK(main_of(R"({"main": "lib/server.js"})") == "lib/server.js");
  CHECK(main_of("\n{\"name\":\"main\",\"x\":[\"main\",{\"main\":\"no\"}],\n\t\"main\" :\r\n\"yes\" , \"z\":1}") ==
        "yes");
  CHECK(main_of(R"({"scripts": {"main": "no"}, "a": "\"main\": \"no\"", "b\\": ":"})") == "?");
  CHECK(main_of(R"({"scripts": {"main": "no"}, "a": "\"main\": \"no\""})") == "");
  CHECK(main_of(R"({"main": "first", "main": "last"})") == "last");
  CHECK(main_of(R"({"main": "first", "main": ["x"]})") == "");
  CHECK(main_of(R"({"main": 7, "x": "y"})") == "");
  CHECK(main_of("{}") == "");
}

TEST_CASE("a text that is cut, or that only a whole parser would read, tells nothing") {
  const std::string whole = R"({"a": ["}", {"b": 1}], "main": "x"})";
  CHECK(main_of(whole) == "x");
  for (std::size_t size = 0; size < whole.size(); ++size) CHECK(main_of(whole.substr(0, size)) == "?");
  for (const char* each : {"", "x", "[]", "\"main\"", R"({"main": "\u002e"})", R"({"m\u0061in": "x"})"})
    CHECK_MESSAGE(main_of(each) == "?", each);
  CHECK(main_of(std::string("{\"main\": \"a\0b\"}", 15)) == "?");
}

TEST_CASE("noise does no harm") {
  std::mt19937 random(7);
  const std::string letters = "{}[]:,\"\\ manix\n";
  for (int round = 0; round < 20'000; ++round) {
    std::string text = "{";
    for (int i = 0; i < round % 60; ++i) text += letters[random() % letters.size()];
    main_of(text);
  }
}

TEST_CASE("without the file nothing is said against index.js; one that is no file, or too large, is not read") {
  const support::temporary_directory directory;
  const std::string path = directory / "package.json";
  CHECK(main_in(directory) == "");
  SUBCASE("file") {
    std::ofstream(path) << R"({"main": "x"})";
    CHECK(main_in(directory) == "x");
  }
  SUBCASE("fifo") {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    CHECK(main_in(directory) == "?");
  }
  SUBCASE("link") {
    std::ofstream(directory / "other") << R"({"main": "x"})";
    fs::create_symlink("other", path);
    CHECK(main_in(directory) == "?");
  }
  SUBCASE("directory") {
    fs::create_directory(path);
    CHECK(main_in(directory) == "?");
  }
  SUBCASE("ten gigabytes") {
    std::ofstream(path) << R"({"main": "x", "y": ")";
    REQUIRE(::truncate(path.c_str(), off_t{10} << 30) == 0);
    CHECK(main_in(directory) == "?");
  }
  SUBCASE("a stranger's") {
    if (!support::is_root()) return;
    std::ofstream(path) << R"({"main": "x"})";
    REQUIRE(::chown(path.c_str(), support::nobody, support::nobody) == 0);
    CHECK(main_in(directory) == "?");
  }
}
