#include "text.h"

#include <fmt/format.h>
#include <holdfast/holdfast.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <utility>

const char* const kSonnets =
    R"(Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;
And every fair from fair sometime declines,
By chance, or nature's changing course untrimm'd;
But thy eternal summer shall not fade,
Nor lose possession of that fair thou ow'st;
Nor shall Death brag thou wander'st in his shade,
When in eternal lines to time thou grow'st;
So long as men can breathe or eyes can see,
So long lives this, and this gives life to thee.

When, in disgrace with fortune and men's eyes,
I all alone beweep my outcast state,
And trouble deaf heaven with my bootless cries,
And look upon myself and curse my fate,
Wishing me like to one more rich in hope,
Featured like him, like him with friends possess'd,
Desiring this man's art and that man's scope,
With what I most enjoy contented least;
Yet in these thoughts myself almost despising,
Haply I think on thee, and then my state,
Like to the lark at break of day arising
From sullen earth, sings hymns at heaven's gate;
For thy sweet love remember'd such wealth brings
That then I scorn to change my state with kings.

When to the sessions of sweet silent thought
I summon up remembrance of things past,
I sigh the lack of many a thing I sought,
And with old woes new wail my dear time's waste:
Then can I drown an eye, unused to flow,
For precious friends hid in death's dateless night,
And weep afresh love's long since cancell'd woe,
And moan the expense of many a vanish'd sight:
Then can I grieve at grievances foregone,
And heavily from woe to woe tell o'er
The sad account of fore-bemoaned moan,
Which I new pay as if not paid before.
But if the while I think on thee, dear friend,
All losses are restored and sorrows end.

Not marble, nor the gilded monuments
Of princes, shall outlive this powerful rhyme;
But you shall shine more bright in these contents
Than unswept stone besmear'd with sluttish time.
When wasteful war shall statues overturn,
And broils root out the work of masonry,
Nor Mars his sword nor war's quick fire shall burn
The living record of your memory.
'Gainst death and all-oblivious enmity
Shall you pace forth; your praise shall still find room
Even in the eyes of all posterity
That wear this world out to the ending doom.
So, till the judgment that yourself arise,
You live in this, and dwell in lovers' eyes.

That time of year thou mayst in me behold
When yellow leaves, or none, or few, do hang
Upon those boughs which shake against the cold,
Bare ruin'd choirs, where late the sweet birds sang.
In me thou see'st the twilight of such day
As after sunset fadeth in the west,
Which by and by black night doth take away,
Death's second self, that seals up all in rest.
In me thou see'st the glowing of such fire
That on the ashes of his youth doth lie,
As the death-bed whereon it must expire
Consumed with that which it was nourish'd by.
This thou perceivest, which makes thy love more strong,
To love that well which thou must leave ere long.

Let me not to the marriage of true minds
Admit impediments. Love is not love
Which alters when it alteration finds,
Or bends with the remover to remove:
O, no! it is an ever-fixed mark,
That looks on tempests and is never shaken;
It is the star to every wandering bark,
Whose worth's unknown, although his height be taken.
Love's not Time's fool, though rosy lips and cheeks
Within his bending sickle's compass come;
Love alters not with his brief hours and weeks,
But bears it out even to the edge of doom.
If this be error and upon me proved,
I never writ, nor no man ever loved.

My mistress' eyes are nothing like the sun;
Coral is far more red than her lips' red;
If snow be white, why then her breasts are dun;
If hairs be wires, black wires grow on her head.
I have seen roses damask'd, red and white,
But no such roses see I in her cheeks;
And in some perfumes is there more delight
Than in the breath that from my mistress reeks.
I love to hear her speak, yet well I know
That music hath a far more pleasing sound:
I grant I never saw a goddess go,
My mistress, when she walks, treads on the ground:
And yet, by heaven, I think my love as rare
As any she belied with false compare.
)";

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!(text << file.rdbuf())) throw std::runtime_error("cannot read " + path + ", or it is empty");
  return text.str();
}

Vocabulary::Vocabulary(const std::string& text) : number_of_(256, -1) {
  const std::set<char> found(text.begin(), text.end());
  bytes_.assign(found.begin(), found.end());
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    number_of_[static_cast<unsigned char>(bytes_[i])] = static_cast<std::int64_t>(i);
  }
}

torch::Tensor Vocabulary::numbers(const std::string& text) const {
  std::vector<std::int64_t> numbers;
  for (const char byte : text) {
    numbers.push_back(number_of_[static_cast<unsigned char>(byte)]);
    if (numbers.back() < 0) {
      throw std::runtime_error("the training text does not contain " +
                               (std::isprint(static_cast<unsigned char>(byte)) != 0
                                    ? "'" + std::string(1, byte) + "'"
                                    : fmt::format("byte {:#x}", static_cast<unsigned char>(byte))));
    }
  }
  return torch::tensor(numbers, torch::kLong);
}

std::string Vocabulary::text(const torch::Tensor& numbers) const {
  std::string text;
  for (std::int64_t i = 0; i < numbers.numel(); ++i) {
    text += bytes_[static_cast<std::size_t>(numbers[i].item<std::int64_t>())];
  }
  return text;
}

Windows::Windows(torch::Tensor numbers, std::int64_t length, std::size_t count, bool random, std::int64_t vocabulary)
    : numbers_(std::move(numbers)), length_(length), count_(count), random_(random), vocabulary_(vocabulary) {
  if (numbers_.defined() && numbers_.numel() <= length_) {
    throw std::runtime_error("a part of the text has " + std::to_string(numbers_.numel()) +
                             " characters, too few for windows of " + std::to_string(length_));
  }
}

Windows Windows::at_random(torch::Tensor numbers, std::int64_t length, std::size_t count) {
  return {std::move(numbers), length, count, /*random=*/true, 0};
}

Windows Windows::in_order(torch::Tensor numbers, std::int64_t length) {
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(0, (numbers.numel() - 1) / length));
  return {std::move(numbers), length, count, /*random=*/false, 0};
}

Windows Windows::synthetic(std::int64_t vocabulary, std::int64_t length, std::size_t count) {
  return {torch::Tensor(), length, count, /*random=*/true, vocabulary};
}

// What is random here follows from (seed, epoch, index) alone, so a run that resumes, on any number of ranks and with
// any number of workers, sees the same windows as an uninterrupted one.
torch::data::Example<> Windows::get(std::size_t index) {
  torch::Tensor window;
  if (!numbers_.defined()) {
    window = torch::randint(vocabulary_, {length_ + 1}, holdfast::sample_generator(index), torch::kLong);
  } else {
    const auto places = static_cast<std::uint64_t>(numbers_.numel() - length_);
    const auto place = random_ ? holdfast::sample_seed(index) % places : index * static_cast<std::uint64_t>(length_);
    window = numbers_.narrow(0, static_cast<std::int64_t>(place), length_ + 1);
  }
  return {window.narrow(0, 0, length_), window.narrow(0, 1, length_)};
}
