// The phases of one step; see model.h for what they share.
#pragma once
#include <chrono>

#include "model.h"

namespace sapwood {

template <class Element>
void Model<Element>::step(const StepArgs& args) {
  prepare(args);
  pool.run([&](int thread) { run(args, thread); });
}

template <class Element>
void Model<Element>::prepare(const StepArgs& args) {
  const int count = args.num_tokens, dim = shape.head_dim;
  const size_t tokens = size_t(count);
  plan_.clear();
  for (int s = 0; s < args.num_spans; ++s)
    plan_.add_span(args.starts[s], args.lengths[s],
                   args.page_table + size_t(args.table_rows[s]) * size_t(args.table_width),
                   shape.window);
  plan_.finish(shape.page_size);

  stride_ = round_up(shape.hidden, STRIP);
  qkv_stride_ = layers.empty() ? 0 : layers[0].qkv.tiles() * TILE;
  x_.reserve(tokens * size_t(stride_));
  selected_.reserve(size_t(args.num_rows) * size_t(stride_));
  cos_.reserve(tokens * size_t(dim / 2));
  sin_.reserve(tokens * size_t(dim / 2));
  qkv_.reserve(tokens * size_t(qkv_stride_));
  queries_.reserve(tokens * size_t(shape.heads * dim));
  attended_.reserve(tokens * size_t(shape.heads * dim));
  const size_t parts = size_t(plan_.num_parts) * size_t(shape.heads);
  parts_.reserve(parts * size_t(dim));
  part_tops_.reserve(parts);
  part_sums_.reserve(parts);
  counters_ = std::vector<Counter>(size_t(shape.layers) * NUM_PHASES + NUM_PHASES);

  const int group = shape.heads / shape.kv_heads;
  const size_t rows = size_t(std::max(BLOCK_TOKENS, SHARED_TOKENS) * group);
  scratch_.resize(size_t(pool.size()));
  for (Scratch& s : scratch_) {
    s.row.reserve(size_t(std::max(stride_, shape.heads * dim)));
    s.queries.reserve(rows * size_t(dim));
    s.part.reserve(rows * size_t(dim));
    s.merged.reserve(rows * size_t(dim));
    s.tops.reserve(rows);
    s.sums.reserve(rows);
    s.merged_tops.reserve(rows);
    s.merged_sums.reserve(rows);
    s.ranges.resize(rows);
    s.best.assign(size_t(args.num_rows), {-std::numeric_limits<float>::infinity(), -1});
    s.inner.reserve(std::max(tokens, size_t(args.num_rows)) * GROUP);
  }
}

// Which rows of the layers' linear maps are taken together, and by whom: blocks of rows that stay in
// the second-level cache, strip by strip.
template <class Element>
template <class FinishStrip>
void Model<Element>::product(const Matrix& w, const Rows& in, int count, Counter& counter,
                             FinishStrip&& finish) {
  const size_t row_bytes = size_t(in.padded) * (in.format == Format::FLOAT32    ? 4
                                                : in.format == Format::BFLOAT16 ? 2
                                                                                : 1);
  const int most = std::max(int(ROW_BLOCK_BYTES / row_bytes) / 96 * 96, 96);
  const int blocks = (count + most - 1) / most, strips = w.tiles() / 2;
  for (int unit; (unit = counter.take()) < blocks * strips;) {
    const int first = unit / strips * most;
    auto finish_row = [&](int row, const float* values) { finish(unit % strips, row, values); };
    multiply_strip(w, unit % strips, in, first, std::min(most, count - first), finish_row);
  }
}

template <class Element>
void Model<Element>::run(const StepArgs& args, int thread) {
#if defined(SAPWOOD_TIER_AMX)
  const amx::Session session;
#endif
  const int count = args.num_tokens;
  Scratch& own = scratch_[size_t(thread)];
  auto before = std::chrono::steady_clock::now();
  const auto clock = [&](Phase phase) {
    if (thread != 0) return;
    const auto now = std::chrono::steady_clock::now();
    seconds[phase] += std::chrono::duration<double>(now - before).count();
    before = now;
  };

  embed(args, thread);
  pool.barrier();
  clock(EMBED);
  for (int l = 0; l < shape.layers; ++l) {
    Layer& layer = layers[size_t(l)];
    Counter* counters = &counters_[size_t(l) * NUM_PHASES];
    const bool alone = count <= ALONE;
    Rows& in = alone ? own.narrow : in_;

    normalize(layer.input_norm.data(), layer.qkv.format, in, count, thread, alone);
    product(layer.qkv, in, count, counters[QKV], [&](int strip, int row, const float* values) {
      std::memcpy(&qkv_[size_t(row) * size_t(qkv_stride_) + size_t(strip * STRIP)], values,
                  STRIP * sizeof(float));
    });
    pool.barrier();
    clock(QKV);
    rotate_and_store(l, count, thread);
    pool.barrier();
    clock(ROPE);
    attend(l, thread);
    clock(ATTENTION);

    // Past the last layer's attention only the rows that give logits matter.
    const bool last = l == shape.layers - 1;
    const int kept = last ? args.num_rows : count;
    const bool kept_alone = kept <= ALONE;
    Rows& attention = kept_alone ? own.narrow_output : attention_rows_;
    if (thread == 0 || kept_alone) {
      attention.prepare(layer.output.format, layer.output.inputs, kept);
    }
    if (thread == 0) {
      residual_ = last ? selected_.data() : x_.data();
      inner_rows_.prepare(layer.down.format, layer.down.inputs, kept);
      if (last)
        for (int i = 0; i < kept; ++i)
          std::memcpy(&selected_[size_t(i) * size_t(stride_)],
                      &x_[size_t(args.rows[i]) * size_t(stride_)], size_t(stride_) * 4);
    }
    pool.barrier();
    const int width = shape.heads * shape.head_dim;
    const int step = kept_alone ? 1 : pool.size();
    for (int i = kept_alone ? 0 : thread; i < kept; i += step) {
      const int row = last ? args.rows[i] : i;
      attention.put_row(i, &attended_[size_t(row) * size_t(width)], width);
    }
    if (!kept_alone) pool.barrier();
    add_product(layer.output, attention, kept, counters[OUTPUT]);
    pool.barrier();
    clock(OUTPUT);

    Rows& normed = kept_alone ? own.narrow : in_;
    normalize(layer.mlp_norm.data(), layer.gate_up.format, normed, kept, thread, kept_alone);
    gate_up(layer, normed, kept, counters[GATE_UP], thread);
    pool.barrier();
    clock(GATE_UP);
    add_product(layer.down, inner_rows_, kept, counters[DOWN]);
    pool.barrier();
    clock(DOWN);
  }
  if (args.num_rows) project_head(args, thread);
  clock(HEAD);
}

template <class Element>
void Model<Element>::embed(const StepArgs& args, int thread) {
  const int half = shape.head_dim / 2;
  if (thread == 0) residual_ = x_.data();
  for (int i = thread; i < args.num_tokens; i += pool.size()) {
    float* row = &x_[size_t(i) * size_t(stride_)];
    unpack_row(embedding, args.token_ids[i], row);
    std::fill(row + shape.hidden, row + stride_, 0.0f);
    rope_angles(plan_.tokens[size_t(i)].position, frequencies.data(), half, shape.rope_scale,
                &cos_[size_t(i) * size_t(half)], &sin_[size_t(i) * size_t(half)]);
  }
}

// Puts the normed rows of the residual into `rows`: each thread all of them for itself (`alone`), or
// all threads together, which then wait for one another.
template <class Element>
void Model<Element>::normalize(const float* weight, Format format, Rows& rows, int count,
                               int thread, bool alone) {
  if (alone || thread == 0) rows.prepare(format, shape.hidden, count);
  if (!alone) pool.barrier();
  float* normed = scratch_[size_t(thread)].row.data();
  for (int i = alone ? 0 : thread; i < count; i += alone ? 1 : pool.size()) {
    rms_norm(residual_ + size_t(i) * size_t(stride_), weight, shape.hidden, shape.eps, normed);
    rows.put_row(i, normed, shape.hidden);
  }
  if (!alone) pool.barrier();
}

template <class Element>
void Model<Element>::add_product(const Matrix& w, const Rows& in, int count, Counter& counter) {
  product(w, in, count, counter, [&](int strip, int row, const float* values) {
    float* x = residual_ + size_t(row) * size_t(stride_) + size_t(strip * STRIP);
    store(x, add(load(x), load(values)));
    store(x + TILE, add(load(x + TILE), load(values + TILE)));
  });
}

// The strips hold 16 gates and their 16 ups; two of them make a group of the next map's input.
template <class Element>
void Model<Element>::gate_up(const Layer& layer, const Rows& in, int count, Counter& counter,
                             int thread) {
  float* products = scratch_[size_t(thread)].inner.data();
  const int units = layer.gate_up.tiles() / 4;
  for (int unit; (unit = counter.take()) < units;) {
    for (int half = 0; half < 2; ++half) {
      auto gate = [&](int row, const float* values) {
        store(products + size_t(row) * GROUP + size_t(half * TILE),
              mul(silu(load(values)), load(values + TILE)));
      };
      multiply_strip(layer.gate_up, 2 * unit + half, in, 0, count, gate);
    }
    for (int row = 0; row < count; ++row)
      inner_rows_.put(row, unit, products + size_t(row) * GROUP);
  }
}

// ---- attention -----------------------------------------------------------------------------

template <class Element>
void Model<Element>::rotate_head(int token, const float* weight, float* values) const {
  const int dim = shape.head_dim, half = dim / 2;
  if (weight) rms_norm(values, weight, dim, shape.eps, values);
  rotate(values, &cos_[size_t(token) * size_t(half)], &sin_[size_t(token) * size_t(half)], half);
}

template <class Element>
void Model<Element>::rotate_and_store(int layer, int num_tokens, int thread) {
  const int dim = shape.head_dim, heads = shape.heads, kv_heads = shape.kv_heads;
  const Layer& weights = layers[size_t(layer)];
  const float* q_norm = weights.q_norm.size() ? weights.q_norm.data() : nullptr;
  const float* k_norm = weights.k_norm.size() ? weights.k_norm.data() : nullptr;
  const int units = num_tokens * (heads + kv_heads);
  const int from = int(int64_t(units) * thread / pool.size());
  const int to = int(int64_t(units) * (thread + 1) / pool.size());
  for (int unit = from; unit < to; ++unit) {
    const int token = unit / (heads + kv_heads), head = unit % (heads + kv_heads);
    float* values = &qkv_[size_t(token) * size_t(qkv_stride_) + size_t(head * dim)];
    rotate_head(token, head < heads ? q_norm : k_norm, values);
    if (head < heads) {
      Element* query = &queries_[(size_t(token) * size_t(heads) + size_t(head)) * size_t(dim)];
      for (int d = 0; d < dim; d += LANES) {
        if constexpr (Kv<Element>::paired) store_bf16(query + d, load(values + d));
        else store(query + d, load(values + d));
      }
      continue;
    }
    const Token& t = plan_.tokens[size_t(token)];
    const int page = t.pages[t.position / shape.page_size], offset = t.position % shape.page_size;
    kv.write_key(layer, page, head - heads, offset, values);
    kv.write_value(layer, page, head - heads, offset, values + kv_heads * dim);
  }
}

template <class Element>
void Model<Element>::attend(int layer, int thread) {
  Counter& counter = counters_[size_t(layer) * NUM_PHASES + ATTENTION];
  const int num_long = int(plan_.long_units.size()) * shape.kv_heads;
  const int num_short = int(plan_.short_units.size()) * shape.kv_heads;
  for (int unit; (unit = counter.take()) < num_long + num_short;) {
    const int head = unit % shape.kv_heads, index = unit / shape.kv_heads;
    if (unit < num_long) {
      attend_long(layer, head, plan_.long_units[size_t(index)], thread);
    } else {
      const int at = index - int(plan_.long_units.size());
      attend_short(layer, head, plan_.short_units[size_t(at)], thread);
    }
  }
  if (num_short) {
    pool.barrier();
    merge_short(thread);
  }
}

template <class Element>
void Model<Element>::attend_long(int layer, int head, const LongUnit& unit, int thread) {
  Scratch& own = scratch_[size_t(thread)];
  const int dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const int count = unit.count * group;
  const size_t group_size = size_t(group * dim);
  int first = INT32_MAX, last = 0;
  for (int i = 0; i < unit.count; ++i) {
    const Token& token = plan_.tokens[size_t(unit.first + i)];
    first = std::min(first, token.range.first);
    last = std::max(last, token.range.last);
    std::memcpy(&own.queries[size_t(i) * group_size],
                &queries_[size_t(unit.first + i) * size_t(shape.heads * dim) +
                          size_t(head) * group_size],
                group_size * sizeof(Element));
    for (int r = 0; r < group; ++r) own.ranges[size_t(i * group + r)] = token.range;
  }
  std::memset(own.merged.data(), 0, size_t(count * dim) * sizeof(float));
  for (int r = 0; r < count; ++r) {
    own.merged_tops[size_t(r)] = MASKED;
    own.merged_sums[size_t(r)] = 0;
  }
  Loader<Element> loader(kv, layer, head, plan_.tokens[size_t(unit.first)].pages);
  const float scale = 1.0f / std::sqrt(float(dim));
  const Part part{own.part.data(), own.tops.data(), own.sums.data()};
  for (int split = first / SPLIT; split <= last / SPLIT; ++split) {
    attend_split(loader, own.queries.data(), own.ranges.data(), count, split, dim, scale, part);
    for (int r = 0; r < count; ++r)
      merge(&own.merged[size_t(r * dim)], own.merged_tops[size_t(r)], own.merged_sums[size_t(r)],
            &own.part[size_t(r * dim)], own.tops[size_t(r)], own.sums[size_t(r)], dim);
  }
  for (int r = 0; r < count; ++r) {
    float* out = &attended_[size_t(unit.first + r / group) * size_t(shape.heads * dim) +
                            size_t(head) * group_size + size_t(r % group * dim)];
    const Vec whole = broadcast(own.merged_sums[size_t(r)]);
    for (int d = 0; d < dim; d += LANES)
      store(out + d, div(load(&own.merged[size_t(r * dim + d)]), whole));
  }
}

template <class Element>
void Model<Element>::attend_short(int layer, int head, const ShortUnit& unit, int thread) {
  Scratch& own = scratch_[size_t(thread)];
  const int dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  const int count = int(unit.tokens.size()) * group;
  const size_t group_size = size_t(group * dim);
  const Token* longest = nullptr;
  for (size_t i = 0; i < unit.tokens.size(); ++i) {
    const Token& token = plan_.tokens[size_t(unit.tokens[i])];
    if (!longest || token.range.last > longest->range.last) longest = &token;
    std::memcpy(&own.queries[i * group_size],
                &queries_[size_t(unit.tokens[i]) * size_t(shape.heads * dim) +
                          size_t(head) * group_size],
                group_size * sizeof(Element));
    for (int r = 0; r < group; ++r) own.ranges[i * size_t(group) + size_t(r)] = token.range;
  }
  Loader<Element> loader(kv, layer, head, longest->pages);
  const float scale = 1.0f / std::sqrt(float(dim));
  attend_split(loader, own.queries.data(), own.ranges.data(), count, unit.split, dim, scale,
               Part{own.part.data(), own.tops.data(), own.sums.data()});
  for (int r = 0; r < count; ++r) {
    const int token = unit.tokens[size_t(r / group)];
    const size_t at = size_t(plan_.part(token, unit.split)) * size_t(shape.heads) +
                      size_t(head * group + r % group);
    std::memcpy(&parts_[at * size_t(dim)], &own.part[size_t(r * dim)], size_t(dim) * 4);
    part_tops_[at] = own.tops[size_t(r)];
    part_sums_[at] = own.sums[size_t(r)];
  }
}

template <class Element>
void Model<Element>::merge_short(int thread) {
  const int dim = shape.head_dim, heads = shape.heads;
  const int units = int(plan_.short_tokens.size()) * heads;
  float* merged = scratch_[size_t(thread)].merged.data();
  for (int unit = thread; unit < units; unit += pool.size()) {
    const int token = plan_.short_tokens[size_t(unit / heads)], head = unit % heads;
    const int splits = Plan::num_splits(plan_.tokens[size_t(token)]);
    float top = MASKED, sum = 0;
    std::memset(merged, 0, size_t(dim) * 4);
    for (int split = 0; split < splits; ++split) {
      const size_t at =
          size_t(plan_.part_of[size_t(token)] + split) * size_t(heads) + size_t(head);
      merge(merged, top, sum, &parts_[at * size_t(dim)], part_tops_[at], part_sums_[at], dim);
    }
    float* out = &attended_[(size_t(token) * size_t(heads) + size_t(head)) * size_t(dim)];
    for (int d = 0; d < dim; d += LANES) store(out + d, div(load(merged + d), broadcast(sum)));
  }
}

// ---- logits --------------------------------------------------------------------------------

inline float allowed_max(const float* values, int count, uint32_t allowed, int& lane) {
  float best = -std::numeric_limits<float>::infinity();
  lane = -1;
  for (int i = 0; i < count; ++i) {
    if (((allowed >> i) & 1) && (values[i] > best || lane < 0)) {
      best = values[i];
      lane = i;
    }
  }
  return best;
}

template <class Element>
void Model<Element>::project_head(const StepArgs& args, int thread) {
  Scratch& own = scratch_[size_t(thread)];
  const Matrix& w = head.outputs ? head : embedding;
  const int count = args.num_rows, strips = w.tiles() / 2;
  const bool alone = count <= ALONE;
  Rows& rows = alone ? own.narrow_output : attention_rows_;
  if (alone || thread == 0) rows.prepare(w.format, shape.hidden, count);
  if (!alone) pool.barrier();
  for (int i = alone ? 0 : thread; i < count; i += alone ? 1 : pool.size()) {
    rms_norm(residual_ + size_t(i) * size_t(stride_), norm.data(), shape.hidden, shape.eps,
             own.row.data());
    rows.put_row(i, own.row.data(), shape.hidden);
  }
  if (!alone) pool.barrier();

  product(w, rows, count, counters_[size_t(shape.layers) * NUM_PHASES + HEAD],
          [&](int strip, int row, const float* values) {
            const int id = strip * STRIP, here = std::min(STRIP, shape.vocab - id);
            if (here <= 0) return;
            if (args.logits && args.logits[row])
              std::memcpy(args.logits[row] + id, values, size_t(here) * 4);
            float largest;
            if (here == STRIP) {
              largest = max_lane(max(load(values), load(values + TILE)));
            } else {
              largest = *std::max_element(values, values + here);
            }
            if (args.strip_maxima)
              args.strip_maxima[size_t(row) * size_t(strips) + size_t(strip)] = largest;
            Best& best = own.best[size_t(row)];
            const int32_t* mask = args.masks ? args.masks[row] : nullptr;
            const uint32_t allowed = mask ? uint32_t(mask[strip]) : ~0u;
            if (!allowed || (best.id >= 0 && largest < best.logit)) return;
            int lane;
            const float logit = allowed_max(values, here, allowed, lane);
            if (lane < 0) return;
            if (best.id < 0 || logit > best.logit || (logit == best.logit && id + lane < best.id))
              best = {logit, id + lane};
          });
  pool.barrier();
  if (thread != 0) return;
  for (int row = 0; row < count; ++row) {
    Best best{-std::numeric_limits<float>::infinity(), -1};
    for (const Scratch& s : scratch_) {
      const Best& other = s.best[size_t(row)];
      if (other.id < 0) continue;
      if (best.id < 0 || other.logit > best.logit ||
          (other.logit == best.logit && other.id < best.id))
        best = other;
    }
    args.best[row] = best.id < 0 ? 0 : best.id;
    args.best_logit[row] = best.logit;
  }
}

}  // namespace sapwood
