// A folder for one test, removed with its content at the end.
#pragma once

#include <boost/filesystem/operations.hpp>
#include <string>

class ScratchFolder {
 public:
  explicit ScratchFolder(const boost::filesystem::path& parent = boost::filesystem::temp_directory_path())
      : path_(parent / boost::filesystem::unique_path("holdfast-test-%%%%%%%%")) {
    boost::filesystem::create_directories(path_);
  }
  ~ScratchFolder() {
    boost::system::error_code ignored;
    boost::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const boost::filesystem::path& path() const { return path_; }
  boost::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  boost::filesystem::path path_;
};
