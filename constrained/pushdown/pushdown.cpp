// The C face of the pushdown machine, for `native.py`. Any thread may call; a grammar is locked while
// it works. Nothing is thrown out of here: a call that fails returns FAILED, or null, and
// `sapwood_error` says why to the thread that called.

#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>

#include "grammar.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace sapwood;

namespace {

constexpr int FAILED = -3;

thread_local char last_error[256];

void note_error(const char* why) noexcept {
  std::strncpy(last_error, why, sizeof last_error - 1);
  last_error[sizeof last_error - 1] = 0;
}

// What `work` returns, or `failed` where it throws.
template <class Result, class Do>
Result caught(Result failed, Do&& work) noexcept {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    note_error("there is not enough memory");
  } catch (const std::exception& error) {
    note_error(error.what());
  } catch (...) {
    note_error("something unknown went wrong");
  }
  return failed;
}

struct Guarded {
  Guarded(Program program, const Vocabulary& vocabulary, double seconds)
      : grammar(std::move(program), vocabulary, seconds) {}
  Grammar grammar;
  std::mutex mutex;
  bool is_whole = true;  // nothing but a limit has ever stopped it in the middle of a change
};

template <class Do, class Result = int>
Result guarded(void* grammar, Do&& work, Result failed = FAILED) noexcept {
  return caught(failed, [&] {
    Guarded* of = static_cast<Guarded*>(grammar);
    const std::lock_guard<std::mutex> lock(of->mutex);
    if (!of->is_whole) throw Limit("it ran out of memory before");
    of->grammar.machine().begin_work();
    try {
      return work(of->grammar);
    } catch (const Limit&) {
      throw;
    } catch (...) {
      of->is_whole = false;
      throw;
    }
  });
}

// The arrays of `Program.arrays`, one after the other.
class Arrays {
 public:
  Arrays(const int32_t* data, const int64_t* sizes) : data_(data), sizes_(sizes) {}

  std::vector<int> ints() { return rows<int>(); }
  template <class Row>
  std::vector<Row> rows() {
    const Row* first = reinterpret_cast<const Row*>(data_);
    data_ += *sizes_;
    return {first, first + *sizes_++ * sizeof(int32_t) / sizeof(Row)};
  }

 private:
  const int32_t* data_;
  const int64_t* sizes_;
};

Program read_program(Arrays arrays) {
  Program program;
  program.root = arrays.ints()[0];
  program.edges.begin = arrays.ints();
  program.edges.flat = arrays.rows<Edge>();
  program.jumps.begin = arrays.ints();
  program.jumps.flat = arrays.ints();
  program.kind = arrays.rows<Kind>();
  program.operands = arrays.rows<Operands>();
  program.rule_start = arrays.ints();
  program.parts.begin = arrays.ints();
  program.parts.flat = arrays.rows<PartOf>();
  program.collections = arrays.rows<CollectionOf>();
  program.members.begin = arrays.ints();
  program.members.flat = arrays.rows<MemberOf>();
  program.needs.begin = arrays.ints();
  program.needs.flat = arrays.rows<Pair>();
  program.counters.begin = arrays.ints();
  program.counters.flat = arrays.rows<Pair>();
  program.find_classes();
  return program;
}

}  // namespace

// Why this thread's last call failed.
EXPORT const char* sapwood_error() { return last_error; }

EXPORT void* sapwood_vocabulary_new(const uint8_t* blob, const int64_t* begin, int size, const int* ends, int num_ends) {
  return caught<void*>(nullptr, [=] { return new Vocabulary(blob, begin, size, ends, num_ends); });
}

EXPORT void sapwood_vocabulary_free(void* vocabulary) { delete static_cast<Vocabulary*>(vocabulary); }

EXPORT void* sapwood_grammar_new(const int32_t* data, const int64_t* sizes, const void* vocabulary, double seconds) {
  return caught<void*>(nullptr, [=] {
    return new Guarded(read_program({data, sizes}), *static_cast<const Vocabulary*>(vocabulary), seconds);
  });
}

EXPORT void sapwood_grammar_free(void* grammar) { delete static_cast<Guarded*>(grammar); }

EXPORT int sapwood_grammar_start(void* grammar) {
  return guarded(grammar, [](Grammar& g) { return g.machine().start(); });
}

EXPORT int sapwood_grammar_size(void* grammar) {
  return guarded(grammar, [](Grammar& g) { return g.machine().size(); });
}

// Bytes that it keeps; one that is no longer whole counts as full.
EXPORT int64_t sapwood_grammar_bytes(void* grammar) {
  return caught(static_cast<int64_t>(MOST_BYTES), [=] {
    Guarded* of = static_cast<Guarded*>(grammar);
    const std::lock_guard<std::mutex> lock(of->mutex);
    return static_cast<int64_t>(of->is_whole ? of->grammar.bytes() : MOST_BYTES);
  });
}

EXPORT int sapwood_grammar_step(void* grammar, int configuration, const uint8_t* text, int length) {
  return guarded(grammar, [=](Grammar& g) { return g.step(configuration, text, length); });
}

EXPORT int sapwood_grammar_accept(void* grammar, int configuration, int token) {
  return guarded(grammar, [=](Grammar& g) { return g.accept(configuration, token); });
}

EXPORT int sapwood_grammar_accepting(void* grammar, int configuration) {
  return guarded(grammar, [=](Grammar& g) { return g.machine().accepting(configuration); });
}

EXPORT int sapwood_grammar_is_end(void* grammar, int configuration) {
  return guarded(grammar, [=](Grammar& g) { return g.is_end(configuration); });
}

EXPORT int sapwood_grammar_shortest(void* grammar, int configuration) {
  return guarded(grammar, [=](Grammar& g) { return g.machine().shortest(configuration); });
}

EXPORT int sapwood_grammar_needed(void* grammar, int configuration) {
  return guarded(grammar, [=](Grammar& g) { return g.needed(configuration); });
}

EXPORT int sapwood_grammar_next_bytes(void* grammar, int configuration, bool* may_follow) {
  return guarded(grammar, [=](Grammar& g) {
    g.next_bytes(configuration, may_follow);
    return 0;
  });
}

// How many bytes must follow; the first `room` of them in `out`, the configuration after all in `end`.
EXPORT int sapwood_grammar_forced(void* grammar, int configuration, uint8_t* out, int room, int* end) {
  return guarded(grammar, [=](Grammar& g) {
    std::vector<uint8_t> bytes;
    *end = g.forced(configuration, bytes);
    std::copy_n(bytes.begin(), std::min<size_t>(bytes.size(), room), out);
    return static_cast<int>(bytes.size());
  });
}

EXPORT int sapwood_grammar_crosses(void* grammar, int configuration, const uint8_t* text, int length, int place) {
  return guarded(grammar, [=](Grammar& g) { return g.crosses(configuration, text, length, place); });
}

// See `Grammar::fill_beyond`.
EXPORT int sapwood_grammar_fill_beyond(void* grammar, int configuration, const uint8_t* before, int length, int budget,
                                       int32_t* row) {
  return guarded(grammar, [=](Grammar& g) {
    g.fill_beyond(configuration, before, length, budget, row);
    return 0;
  });
}

EXPORT int sapwood_fill(void* grammar, int configuration, int budget, int32_t* row) {
  return guarded(grammar, [=](Grammar& g) {
    g.fill(configuration, budget, row);
    return 0;
  });
}

// See `Grammar::row_number`.
EXPORT int64_t sapwood_grammar_row_number(void* grammar, int configuration, int budget) {
  return guarded(grammar, [=](Grammar& g) { return g.row_number(configuration, budget); }, int64_t{0});
}

struct Job {
  int64_t grammar, configuration, budget, place;  // `place`: of the row, among those `stride` words apart
};

// One row of allowed tokens for each job. Returns how many were filled: at the first that fails it ends.
EXPORT int sapwood_fill_rows(const Job* jobs, int count, int32_t* rows, int64_t stride) {
  for (int i = 0; i < count; ++i) {
    const Job& job = jobs[i];
    void* grammar = reinterpret_cast<void*>(static_cast<intptr_t>(job.grammar));
    if (sapwood_fill(grammar, static_cast<int>(job.configuration), static_cast<int>(job.budget),
                     rows + job.place * stride) == FAILED)
      return i;
  }
  return count;
}
