#include "holdfast/runtime/platform/surroundings.h"

#include <cstdlib>

#include "catch.h"
#include "made_up_machine.h"

namespace holdfast {
namespace {

TEST_CASE("mount_table_is_read_with_its_escapes_and_options") {
  const auto mounts = parse_mounts(
      "22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
      "28 1 254:1 / / rw,relatime shared:1 master:2 - ext4 /dev/vda1 rw\n"
      "99 28 0:50 /sub\\040folder /mnt/My\\040Drive ro,noatime - nfs4 server:/export\\134a rw,vers=4.2\n"
      "not a line of a mount table\n"
      "100 28 0:51 / /torn rw\n");
  REQUIRE(mounts.size() == 3);
  CHECK(mounts[1].point == "/");
  CHECK(mounts[1].type == "ext4");
  CHECK_FALSE(mounts[1].read_only);
  CHECK(mounts[2].point == "/mnt/My Drive");
  CHECK(mounts[2].root == "/sub folder");
  CHECK(mounts[2].source == "server:/export\\a");
  CHECK(mounts[2].read_only);
}

TEST_CASE("path_belongs_to_the_deepest_mount_and_a_later_mount_covers_an_earlier_one") {
  const auto mounts = parse_mounts(
      "1 0 0:1 / / rw - ext4 /dev/a rw\n"
      "2 1 0:2 / /content rw - overlay overlay rw\n"
      "3 2 0:3 / /content/drive rw - fuse.drive drive rw\n"
      "4 1 0:4 / /data rw - ext4 /dev/b rw\n"
      "5 1 0:5 / /data rw - tmpfs none rw\n");
  CHECK(mount_of("/content/drive/MyDrive/runs", mounts)->type == "fuse.drive");
  CHECK(mount_of("/content/drive", mounts)->type == "fuse.drive");
  CHECK(mount_of("/content/driveway", mounts)->type == "overlay");
  CHECK(mount_of("/home", mounts)->type == "ext4");
  CHECK(mount_of("/data/x", mounts)->type == "tmpfs");
  CHECK(mount_of("/", mounts)->type == "ext4");
  CHECK(mount_of("/anything", {}) == nullptr);
}

TEST_CASE("look_around_sees_this_process") {
  ::setenv("HOLDFAST_TEST_VALUE", "a=b", 1);
  const Surroundings around = look_around();
  CHECK(around.variable("HOLDFAST_TEST_VALUE") == "a=b");
  CHECK_FALSE(around.variable("HOLDFAST_TEST_NOT_SET"));
  REQUIRE(mount_of("/proc/self", around.mounts) != nullptr);  // "/" is none in a chroot
  CHECK(mount_of("/proc/self", around.mounts)->type == "proc");
  CHECK(around.exists("/proc"));
  CHECK(around.read("/proc/self/comm").value_or("").starts_with("platform_tests"));
  CHECK_FALSE(around.exists("/no/such/file"));
}

}  // namespace
}  // namespace holdfast
