#include "holdfast/storage/text/nearest_name.h"

#include "catch.h"

namespace holdfast::storage {

TEST_CASE("the_nearest_name_takes_the_fewest_edits") {
  CHECK(nearest_name("evry", {"device", "every", "keep"}).name == "every");
  CHECK(nearest_name("evry", {"device", "every", "keep"}).distance == 1);
  CHECK(nearest_name("takeover", {"take-over", "threads"}).distance == 1);
  CHECK(nearest_name("", {"abc"}).distance == 3);
  CHECK(nearest_name("same", {"some", "same"}).distance == 0);
}

TEST_CASE("a_name_that_is_far_from_all_others_has_no_nearest_name") {
  CHECK(meant_name("shwo", {"ls", "show", "verify"}) == "show");
  CHECK(meant_name("xy", {"ls", "show"}).empty());
  CHECK(meant_name("optimizer.weights", {"optimizer.weight"}) == "optimizer.weight");
  CHECK(meant_name("anything", {}).empty());
}

}  // namespace holdfast::storage
