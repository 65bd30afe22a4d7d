// One captured graph as the hot path sees it, and the table of all of a cache.
#ifndef ROBOCACHE_PYTHON_GRAPH_ENTRY_H
#define ROBOCACHE_PYTHON_GRAPH_ENTRY_H

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "graph_key.h"
#include "robocache.h"

namespace robocache::graphs {

enum class State : int32_t {
    kWatched = 0, // Python looks at every call: trials, graphs that must go through torch's own replay
    kOn = 1,      // replayed here
    kOff = 2      // runs eagerly
};

enum class Outputs : int32_t { kClone = 0, kBorrow = 1, kRing = 2 };

// A tensor whose memory stays where it is between replays.
struct Static {
    char *data = nullptr;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    int32_t element_size = 0;
    bool in_place = false;           // inputs: the caller's own memory, valid while it stays at `data`
    Ref shape, clone_strides, dtype; // outputs: what empty_strided is asked for
};

// The outputs' structure, in the order they are built.
struct Node {
    int32_t kind; // kNodeTensor ...
    int32_t count;
    Ref object; // the constant, the tuple of keys, the type
};
enum NodeKind : int32_t { kNodeTensor, kNodeConstant, kNodeTuple, kNodeList, kNodeDict, kNodeNamedTuple };

// What one captured graph needs to be replayed. Threads that replay hold it; the entry may drop it meanwhile.
struct Plan {
    int32_t device = 0;
    Outputs mode = Outputs::kClone;
    std::vector<Static> inputs;
    std::vector<Static> outputs;
    std::vector<Node> nodes;
    std::vector<std::vector<Ref>> sets; // borrow: one, the graph's own outputs; ring: k
    void *exec = nullptr;
    void *event = nullptr;

    std::mutex mutex; // taken without the GIL, around launches and the fields below
    bool retired = false;
    bool replayed = false;
    void *last_stream = nullptr;
};

struct Entry {
    uint64_t hash = 0;
    std::vector<int64_t> words;
    std::vector<Ref> constants;
    State state = State::kWatched;
    int64_t hits = 0;
    int64_t eager = 0; // calls that ran eagerly because the state is kOff
    int64_t last_use = 0;
    int64_t generation = 0; // replays begun
    std::shared_ptr<Plan> plan;

    bool matches(const Signature &signature) const {
        return words == signature.words && same_constants(constants, signature.constants);
    }
};

// Which calls were seen, for how long, and where their tensors were: fixed memory, newer calls push older ones out.
struct Seen {
    static constexpr size_t kSets = 1024;
    static constexpr size_t kWays = 4;       // calls that share a set do not push each other out at once
    static constexpr size_t kAddresses = 12; // tensors whose place is watched; later ones count as moving

    struct Slot {
        uint64_t hash = 0;
        int32_t countdown = 0;
        uint32_t used = 0; // when
        std::array<uint32_t, kAddresses> addresses{};
    };
    std::vector<Slot> slots = std::vector<Slot>(kSets * kWays);
    uint32_t clock = 0;

    // The slot of a call; an emptied one, with hash 0, when it has none.
    Slot &slot(uint64_t hash) {
        Slot *set = &slots[hash % kSets * kWays];
        Slot *oldest = set;
        ++clock;
        for (size_t way = 0; way < kWays; ++way) {
            if (set[way].hash == hash) {
                set[way].used = clock;
                return set[way];
            }
            if (clock - set[way].used > clock - oldest->used) {
                oldest = &set[way];
            }
        }
        *oldest = Slot{};
        oldest->used = clock;
        return *oldest;
    }
};

// Functions whose calls never come to anything (always new shapes, or keys that are off) are looked at in bursts only, so
// that a cache that does not help costs next to nothing.
struct Doze {
    static constexpr int32_t kPatience = 256; // fruitless calls in a row before the first nap
    static constexpr int32_t kNap = 480;
    static constexpr int32_t kBurst = 32;

    int32_t fruitless = 0;
    int32_t asleep = 0; // calls left to sleep through
    bool off = false;   // the last call's key was off

    bool sleeps() {
        if (asleep == 0) {
            return false;
        }
        --asleep;
        return true;
    }
    void note_fruitless(bool is_off) {
        off = is_off;
        if (++fruitless >= kPatience) {
            fruitless = kPatience - kBurst;
            asleep = kNap;
        }
    }
    void note_fruit() {
        fruitless = 0;
    }
};

struct Table {
    int32_t device_type = 0;
    int32_t capture_after = 2;
    std::unordered_multimap<uint64_t, std::shared_ptr<Entry>> entries;
    Seen seen;
    std::unordered_map<int64_t, Doze> dozing; // by function
    int64_t clock = 0;
    int64_t misses = 0;
    int64_t off = 0;
    int64_t hits = 0;
    int64_t borrowing = 0; // entries whose outputs are lent
    std::array<int64_t, kNumWhy> left_alone{};

    std::shared_ptr<Entry> find(const Signature &signature);
};

// A call that Python must look at.
struct Sighting {
    Signature signature;
    std::vector<Ref> objects; // the tensors, kept
    std::vector<Ref> constants;
    std::vector<bool> stayed; // at the address of the sighting before
    bool ready = false;       // seen often enough to be captured
    std::shared_ptr<Entry> entry;
};

// Replays for tensors that fit the entry's signature: a new reference to the result; nullptr with an error set; or
// nullptr without one, and nothing done, when the entry is retired, the stream is being captured or an input that must
// stay in place has moved.
PyObject *replay(Entry &entry, const std::vector<Leaf> &tensors, void *stream);

// The result's structure around `tensors`; a new reference or nullptr with an error set.
PyObject *rebuild(const Plan &plan, const std::vector<Ref> &tensors);

} // namespace robocache::graphs

#endif // ROBOCACHE_PYTHON_GRAPH_ENTRY_H
