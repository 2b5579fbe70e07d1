// A decoder of the Llama family and one step of it over the paged cache.
//
// Owns: the weights, the cache, the step's buffers and the order of its phases; every thread runs
// `Model::run` and meets the others between phases. Knows no request, tree or sampling rule beyond
// the largest logit.
#pragma once
#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "activations.h"
#include "attention.h"
#include "gemm.h"
#include "norm.h"
#include "plan.h"
#include "pool.h"
#include "rope.h"
#include "weights.h"

namespace sapwood {

// How keys and values are kept.
enum class KvFormat : int { BFLOAT16 = 0, FLOAT32 = 1, INT8 = 2 };

struct Shape {
  int layers, hidden, heads, kv_heads, head_dim, inner, vocab;
  int page_size, num_pages, window;  // window 0: a token sees everything before it
  int kv_format;                     // a KvFormat
  int threads;
  float eps, rope_scale;
};

struct Layer {
  Matrix qkv, output, gate_up, down;
  Buffer<float> input_norm, mlp_norm, q_norm, k_norm;  // the last two: empty without them
};

// The plan of one step, in the caller's memory. S spans, N tokens, R rows of logits.
struct StepArgs {
  int32_t num_spans, num_tokens, num_rows, table_width;
  const int32_t* token_ids;   // [N], span after span
  const int32_t* starts;      // [S], the first token's position
  const int32_t* lengths;     // [S]
  const int32_t* table_rows;  // [S], the span's row of the page table
  const int32_t* page_table;  // [..., table_width]
  const int32_t* rows;        // [R], tokens of the step, ascending
  const int32_t* const* masks;  // [R] packed bitmasks, each of vocab bits, or null; or null
  float* const* logits;       // [R] where a row's logits go, or null; or null
  float* strip_maxima;        // [R][ceil(vocab / 32)], or null
  int32_t* best;              // [R], the lowest id of the largest allowed logits
  float* best_logit;          // [R]
};

// What `seconds` tells apart.
enum Phase { EMBED, QKV, ROPE, ATTENTION, OUTPUT, GATE_UP, DOWN, HEAD, NUM_PHASES };

// The phases of one layer, each with its work; and those around the layers.
struct LayerWork {
  Work input, qkv, rope, attention, merge, select, gather, output, mlp_input, gate_up, down;
};
struct StepWork {
  Work embed, head_input, head;
};

class ModelBase {
 public:
  explicit ModelBase(const Shape& shape_) : shape(shape_), pool(shape_.threads) {}
  virtual ~ModelBase() = default;
  virtual void step(const StepArgs& args) = 0;
  virtual void copy_page(int source, int target) = 0;

  const Shape shape;
  Pool pool;
  Arena arena;  // holds the weights, so it goes last
  std::vector<Layer> layers;
  Matrix embedding, head;      // head: empty where the embedding serves as both
  const Matrix& head_matrix() const { return head.outputs ? head : embedding; }
  Buffer<float> norm;          // [hidden]
  Buffer<float> frequencies;   // [head_dim / 2], radians per position
  double seconds[NUM_PHASES] = {};  // of thread 0, since the last reset
};

template <class Element, class Stored>
class Model final : public ModelBase {
 public:
  explicit Model(const Shape& shape_)
      : ModelBase(shape_),
        kv(shape.layers, shape.kv_heads, shape.head_dim, shape.page_size, shape.num_pages) {}

  void step(const StepArgs& args) override;
  void copy_page(int source, int target) override { kv.copy_page(source, target); }

  Kv<Element, Stored> kv;

 private:
  struct Best {
    float logit;
    int id;
  };

  void prepare(const StepArgs& args);
  void run(const StepArgs& args, Member me);
  void embed(const StepArgs& args, Member me);
  template <class Put>
  const Rows& make_rows(Rows& shared, Rows& own, int inputs, int count, Work& work, Member me,
                        Put&& put);
  const Rows& normalize(const float* residual, const float* weight, Format format, int count,
                        Work& work, Member me);
  void rotate_and_store(int layer, int token, int head);
  void rotate_head(int token, const float* weight, float* values) const;
  void attend(int layer, LayerWork& work, Member me);
  void attend_long(int layer, int head, const LongUnit& unit, Member me);
  void attend_short(int layer, int head, const ShortUnit& unit, Member me);
  void merge_short(int token, float* merged);
  void gate_up(const Layer& layer, const Rows& in, Rows& out, int count, Work& work, Member me);
  void add_product(const Matrix& w, const Rows& in, int count, float* residual, Work& work,
                   Member me);
  void project_head(const StepArgs& args, Member me);
  template <class FinishRow>
  void product(const Matrix& w, const Rows& in, int count, Work& work, Member me,
               FinishRow&& finish);

  // Scratch of one thread.
  struct Scratch {
    Rows rows, attended_rows;    // small steps' rows, made by each thread for itself
    Buffer<float> row;           // [hidden or heads * dim]
    Buffer<Element> queries;     // [rows][dim]
    Buffer<Element> tiles;       // a split's keys and values, where they are put together
    Buffer<float> part, merged;  // [rows][dim]
    Buffer<float> tops, sums, merged_tops, merged_sums;
    std::vector<Range> ranges;
    Buffer<float> inner;         // [unit's rows][32]
    std::vector<Best> best;
  };

  // Up to this many tokens each thread makes the rows it reads by itself: dearer, but no waiting.
  static constexpr int ALONE = 2;
  static constexpr int UNIT_ROWS = 96;  // whole blocks of every tier

  int stride_ = 0, qkv_stride_ = 0;
  Plan plan_;
  std::vector<LayerWork> layer_work_;
  StepWork work_;
  std::vector<Scratch> scratch_;
  Buffer<float> x_, selected_;      // [tokens][stride]: the sum over the layers
  Buffer<float> cos_, sin_;         // [tokens][dim / 2]
  Buffer<float> qkv_;               // [tokens][qkv stride]
  Buffer<Element> queries_;         // [tokens][heads][dim], turned
  Buffer<float> attended_;          // [tokens][heads * dim]
  Buffer<float> parts_, part_tops_, part_sums_;  // [parts][heads][dim], [parts][heads]
  // By format, since layers may differ: what the linear maps read.
  Rows rows_[NUM_FORMATS], attended_rows_[NUM_FORMATS], inner_rows_[NUM_FORMATS];
};

}  // namespace sapwood
