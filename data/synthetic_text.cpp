// synthetic_text: English-like sentences from a small grammar.
#include "data/synthetic_text.h"

#include <array>
#include <cctype>

#include "data/host_random.h"

namespace tandem::io {
namespace {

struct Noun {
  const char *one, *many;
};
struct Verb {
  const char *one, *many;  // "sees", "see"
};

constexpr std::array kPeople{Noun{"king", "kings"},      Noun{"sailor", "sailors"},     Noun{"child", "children"},
                             Noun{"miller", "millers"},  Noun{"daughter", "daughters"}, Noun{"thief", "thieves"},
                             Noun{"woman", "women"},     Noun{"stranger", "strangers"}, Noun{"fox", "foxes"},
                             Noun{"old man", "old men"}, Noun{"raven", "ravens"},       Noun{"clerk", "clerks"}};
constexpr std::array kThings{Noun{"river", "rivers"},     Noun{"stone", "stones"},   Noun{"letter", "letters"},
                             Noun{"lantern", "lanterns"}, Noun{"bridge", "bridges"}, Noun{"apple", "apples"},
                             Noun{"key", "keys"},         Noun{"ship", "ships"},     Noun{"garden", "gardens"},
                             Noun{"knife", "knives"},     Noun{"tower", "towers"},   Noun{"coin", "coins"}};
constexpr std::array kTransitive{Verb{"sees", "see"},     Verb{"finds", "find"},   Verb{"remembers", "remember"},
                                 Verb{"wants", "want"},   Verb{"hides", "hide"},   Verb{"follows", "follow"},
                                 Verb{"loses", "lose"},   Verb{"paints", "paint"}, Verb{"carries", "carry"},
                                 Verb{"watches", "watch"}};
constexpr std::array kIntransitive{Verb{"sleeps", "sleep"}, Verb{"waits", "wait"}, Verb{"sings", "sing"},
                                   Verb{"laughs", "laugh"}, Verb{"falls", "fall"}, Verb{"returns", "return"}};
constexpr std::array kAdjectives{"small", "quiet",   "golden", "broken", "green",
                                 "heavy", "distant", "clever", "pale",   "hungry"};
constexpr std::array kPlaces{"by the sea",  "in the long grass", "under the hill",
                             "at the gate", "behind the mill",   "on the road to the north"};
constexpr std::array kTimes{"At night", "In the spring", "Before the rain", "Once a year", "When the bells ring"};
constexpr std::array kNumbers{"nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"};

class Writer {
 public:
  explicit Writer(uint64_t seed) : random_(seed, 0x7e47) {}

  std::string paragraph() {
    std::string text;
    for (uint64_t sentences = 3 + random_.below(5); sentences > 0; --sentences) {
      if (!text.empty()) text += ' ';
      text += sentence();
    }
    return text + "\n\n";
  }

 private:
  template <class List> const auto& one_of(const List& list) { return list[random_.below(list.size())]; }
  bool chance(double probability) { return random_.uniform() < probability; }

  // Text grows by one draw a statement: the order in which operands of + are evaluated is the compiler's.
  struct Phrase {
    std::string text;
    bool is_plural;
  };
  Phrase noun_phrase(bool person) {
    const Noun& noun = person ? one_of(kPeople) : one_of(kThings);
    const bool plural = chance(0.35);
    std::string text = plural ? (chance(0.5) ? "the " : "those ") : (chance(0.7) ? "the " : "this ");
    if (chance(0.35)) text.append(one_of(kAdjectives)).append(" ");
    return {text + (plural ? noun.many : noun.one), plural};
  }
  void add_verb(std::string& text, const Verb& verb, bool is_plural) {
    text.append(" ").append(is_plural ? verb.many : verb.one);
  }
  void add_noun(std::string& text, bool person) { text.append(" ").append(noun_phrase(person).text); }

  std::string clause() {
    const Phrase subject = noun_phrase(true);
    std::string text = subject.text;
    if (chance(0.25)) {  // the verb after it agrees with the subject, not with the noun that is nearer
      text += " who";
      add_verb(text, one_of(kTransitive), subject.is_plural);
      add_noun(text, false);
    }
    if (chance(0.6)) {
      add_verb(text, one_of(kTransitive), subject.is_plural);
      add_noun(text, chance(0.3));
    } else {
      add_verb(text, one_of(kIntransitive), subject.is_plural);
    }
    if (chance(0.3)) text.append(" ").append(one_of(kPlaces));
    return text;
  }

  static std::string capital(std::string text) {
    text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
    return text;
  }

  std::string sentence() {
    const double kind = random_.uniform();
    std::string text;
    if (kind < 0.15) {
      text = std::string(one_of(kTimes)) + ", ";
      text += clause();
    } else if (kind < 0.3) {
      const Phrase speaker = noun_phrase(true);
      text = '"' + capital(clause());
      text += chance(0.3) ? "!\" " : ",\" ";
      text += speaker.is_plural ? "say " : "says ";
      text += speaker.text;
    } else if (kind < 0.45) {
      const uint64_t a = random_.below(6), b = random_.below(5);
      text = capital(kNumbers[a]) + " and " + kNumbers[b] + (a + b == 1 ? " is " : " are ") + kNumbers[a + b];
    } else {
      text = capital(clause());
      if (chance(0.2)) {
        text += chance(0.5) ? ", and " : ", but ";
        text += clause();
      }
    }
    return text + '.';
  }

  HostRandom random_;
};

}  // namespace

std::string synthetic_text(SyntheticTextOptions options, Where where) {
  constexpr int64_t kMost = int64_t{1} << 32;
  if (options.bytes < 0 || options.bytes > kMost)
    throw ValueError(tandem::detail::str("io::synthetic_text: bytes is ", options.bytes, ", need 0 to ", kMost), where);
  Writer writer(options.seed);
  std::string text;
  text.reserve(static_cast<size_t>(options.bytes) + 1000);
  while (static_cast<int64_t>(text.size()) < options.bytes) text += writer.paragraph();
  return text;
}

}  // namespace tandem::io
