// The phases of one step; see model.h for what they share.
#pragma once
#include <chrono>

#include "model.h"

namespace sapwood {

template <class Element, class Stored>
void Model<Element, Stored>::step(const StepArgs& args) {
  prepare(args);
  pool.run([&](Member me) { run(args, me); });
}

template <class Element, class Stored>
void Model<Element, Stored>::prepare(const StepArgs& args) {
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
  layer_work_ = std::vector<LayerWork>(size_t(shape.layers));
  for (Work* work : {&work_.embed, &work_.head_input, &work_.head}) work->reset();

  for (const Layer& layer : layers) {
    for (const Matrix* w : {&layer.qkv, &layer.gate_up})
      rows_[int(w->format)].prepare(w->format, shape.hidden, count);
    attended_rows_[int(layer.output.format)].prepare(layer.output.format, layer.output.inputs, count);
    inner_rows_[int(layer.down.format)].prepare(layer.down.format, shape.inner, count);
  }
  rows_[int(head_matrix().format)].prepare(head_matrix().format, shape.hidden, count);

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
    s.inner.reserve(size_t(UNIT_ROWS) * GROUP);
  }
}

// Units of a linear map: blocks of rows that stay in the second-level cache, strip by strip.
template <class Element, class Stored>
template <class FinishRow>
void Model<Element, Stored>::product(const Matrix& w, const Rows& in, int count, Work& work, Member me,
                             FinishRow&& finish) {
  const int blocks = (count + UNIT_ROWS - 1) / UNIT_ROWS, strips = w.tiles() / 2;
  work.run(me, blocks * strips, [&](int unit) {
    const int first = unit / strips * UNIT_ROWS, strip = unit % strips;
    auto finish_rows = [&](int row, int rows, const float* products) {
      for (int r = 0; r < rows; ++r) finish(strip, row + r, products + r * STRIP);
    };
    multiply_strip(w, strip, in, first, std::min(UNIT_ROWS, count - first), finish_rows);
  });
}

template <class Element, class Stored>
void Model<Element, Stored>::run(const StepArgs& args, Member me) {
#if defined(SAPWOOD_TIER_AMX)
  const amx::Session session;
#endif
  const int count = args.num_tokens, width = shape.heads * shape.head_dim;
  auto before = std::chrono::steady_clock::now();
  const auto clock = [&](Phase phase) {
    if (me.index != 0) return;
    const auto now = std::chrono::steady_clock::now();
    seconds[phase] += std::chrono::duration<double>(now - before).count();
    before = now;
  };

  embed(args, me);
  clock(EMBED);
  for (int l = 0; l < shape.layers; ++l) {
    Layer& layer = layers[size_t(l)];
    LayerWork& work = layer_work_[size_t(l)];
    const Rows& in = normalize(x_.data(), layer.input_norm.data(), layer.qkv.format, count,
                               work.input, me);
    product(layer.qkv, in, count, work.qkv, me, [&](int strip, int row, const float* values) {
      std::memcpy(&qkv_[size_t(row) * size_t(qkv_stride_) + size_t(strip * STRIP)], values,
                  STRIP * sizeof(float));
    });
    clock(QKV);
    const int stored = shape.heads + shape.kv_heads, units = (count * stored + 3) / 4;
    work.rope.run(me, units, [&](int unit) {  // four heads a unit: less would cost more to hand out
      for (int i = 4 * unit; i < std::min(4 * unit + 4, count * stored); ++i)
        rotate_and_store(l, i / stored, i % stored);
    });
    clock(ROPE);
    attend(l, work, me);
    clock(ATTENTION);

    // Past the last layer's attention only the rows that give logits matter.
    const bool last = l == shape.layers - 1;
    const int kept = last ? args.num_rows : count;
    float* residual = last ? selected_.data() : x_.data();
    if (last) {
      work.select.run(me, kept, [&](int i) {
        std::memcpy(&selected_[size_t(i) * size_t(stride_)],
                    &x_[size_t(args.rows[i]) * size_t(stride_)], size_t(stride_) * sizeof(float));
      });
    }
    const Rows& attended = make_rows(
        attended_rows_[int(layer.output.format)], scratch_[size_t(me.index)].attended_rows, width,
        kept, work.gather, me, [&](Rows& rows, int i) {
          const int row = last ? args.rows[i] : i;
          rows.put_row(i, &attended_[size_t(row) * size_t(width)], width);
        });
    add_product(layer.output, attended, kept, residual, work.output, me);
    clock(OUTPUT);

    const Rows& normed = normalize(residual, layer.mlp_norm.data(), layer.gate_up.format, kept,
                                   work.mlp_input, me);
    Rows& inner = inner_rows_[int(layer.down.format)];
    gate_up(layer, normed, inner, kept, work.gate_up, me);
    clock(GATE_UP);
    add_product(layer.down, inner, kept, residual, work.down, me);
    clock(DOWN);
  }
  if (args.num_rows) project_head(args, me);
  clock(HEAD);
}

template <class Element, class Stored>
void Model<Element, Stored>::embed(const StepArgs& args, Member me) {
  const int half = shape.head_dim / 2;
  work_.embed.run(me, args.num_tokens, [&](int i) {
    float* row = &x_[size_t(i) * size_t(stride_)];
    unpack_row(embedding, args.token_ids[i], row);
    std::fill(row + shape.hidden, row + stride_, 0.0f);
    rope_angles(plan_.tokens[size_t(i)].position, frequencies.data(), half, shape.rope_scale,
                &cos_[size_t(i) * size_t(half)], &sin_[size_t(i) * size_t(half)]);
  });
}

// The rows that a product reads, put in place by `put(rows, row)`: each thread all of them for itself
// where they are few, or all threads together. A late thread's own copy may be made of numbers that
// others are changing by then; but then the product has no unit left, and nobody reads the copy.
template <class Element, class Stored>
template <class Put>
const Rows& Model<Element, Stored>::make_rows(Rows& shared, Rows& own, int inputs, int count, Work& work,
                                      Member me, Put&& put) {
  if (count > ALONE) {
    work.run(me, count, [&](int i) { put(shared, i); });
    return shared;
  }
  own.prepare(shared.format, inputs, count);
  for (int i = 0; i < count; ++i) put(own, i);
  return own;
}

template <class Element, class Stored>
const Rows& Model<Element, Stored>::normalize(const float* residual, const float* weight, Format format,
                                      int count, Work& work, Member me) {
  Scratch& own = scratch_[size_t(me.index)];
  return make_rows(rows_[int(format)], own.rows, shape.hidden, count, work, me, [&](Rows& rows, int i) {
    rms_norm(residual + size_t(i) * size_t(stride_), weight, shape.hidden, shape.eps,
             own.row.data());
    rows.put_row(i, own.row.data(), shape.hidden);
  });
}

template <class Element, class Stored>
void Model<Element, Stored>::add_product(const Matrix& w, const Rows& in, int count, float* residual,
                                 Work& work, Member me) {
  product(w, in, count, work, me, [&](int strip, int row, const float* values) {
    float* x = residual + size_t(row) * size_t(stride_) + size_t(strip * STRIP);
    store(x, add(load(x), load(values)));
    store(x + TILE, add(load(x + TILE), load(values + TILE)));
  });
}

// The strips hold 16 gates and their 16 ups; two of them make a group of the next map's input.
template <class Element, class Stored>
void Model<Element, Stored>::gate_up(const Layer& layer, const Rows& in, Rows& out, int count, Work& work,
                             Member me) {
  float* products = scratch_[size_t(me.index)].inner.data();
  const int blocks = (count + UNIT_ROWS - 1) / UNIT_ROWS, pairs = layer.gate_up.tiles() / 4;
  work.run(me, blocks * pairs, [&](int unit) {
    const int first = unit / pairs * UNIT_ROWS, pair = unit % pairs;
    const int here = std::min(UNIT_ROWS, count - first);
    for (int half = 0; half < 2; ++half) {
      auto gate = [&](int row, int rows, const float* values) {
        float* target = products + size_t(row - first) * GROUP + size_t(half * TILE);
        for (int r = 0; r < rows; ++r, values += STRIP, target += GROUP)
          store(target, mul(silu(load(values)), load(values + TILE)));
      };
      multiply_strip(layer.gate_up, 2 * pair + half, in, first, here, gate);
    }
    for (int row = 0; row < here; ++row)
      out.put(first + row, pair, products + size_t(row) * GROUP);
  });
}

// ---- attention -----------------------------------------------------------------------------

template <class Element, class Stored>
void Model<Element, Stored>::rotate_head(int token, const float* weight, float* values) const {
  const int dim = shape.head_dim, half = dim / 2;
  if (weight) rms_norm(values, weight, dim, shape.eps, values);
  rotate(values, &cos_[size_t(token) * size_t(half)], &sin_[size_t(token) * size_t(half)], half);
}

template <class Element, class Stored>
void Model<Element, Stored>::rotate_and_store(int layer, int token, int head) {
  const int dim = shape.head_dim, heads = shape.heads;
  const Buffer<float>& norm = head < heads ? layers[size_t(layer)].q_norm : layers[size_t(layer)].k_norm;
  float* values = &qkv_[size_t(token) * size_t(qkv_stride_) + size_t(head * dim)];
  rotate_head(token, norm.size() ? norm.data() : nullptr, values);
  if (head < heads) {
    Element* query = &queries_[(size_t(token) * size_t(heads) + size_t(head)) * size_t(dim)];
    for (int d = 0; d < dim; d += LANES) {
      if constexpr (Kv<Element, Stored>::paired) store_bf16(query + d, load(values + d));
      else store(query + d, load(values + d));
    }
    return;
  }
  const Token& t = plan_.tokens[size_t(token)];
  const int page = t.pages[t.position / shape.page_size], offset = t.position % shape.page_size;
  kv.write_key(layer, page, head - heads, offset, values);
  kv.write_value(layer, page, head - heads, offset, values + shape.kv_heads * dim);
}

template <class Element, class Stored>
void Model<Element, Stored>::attend(int layer, LayerWork& work, Member me) {
  const int num_long = int(plan_.long_units.size()) * shape.kv_heads;
  const int num_short = int(plan_.short_units.size()) * shape.kv_heads;
  work.attention.run(me, num_long + num_short, [&](int unit) {
    const int head = unit % shape.kv_heads, index = unit / shape.kv_heads;
    if (unit < num_long) {
      attend_long(layer, head, plan_.long_units[size_t(index)], me);
    } else {
      const size_t at = size_t(index) - plan_.long_units.size();
      attend_short(layer, head, plan_.short_units[at], me);
    }
  });
  if (num_short) {
    work.merge.run(me, int(plan_.short_tokens.size()), [&](int i) {
      merge_short(plan_.short_tokens[size_t(i)], scratch_[size_t(me.index)].merged.data());
    });
  }
}

template <class Element, class Stored>
void Model<Element, Stored>::attend_long(int layer, int head, const LongUnit& unit, Member me) {
  Scratch& own = scratch_[size_t(me.index)];
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
  Loader<Element, Stored> loader(kv, layer, head, plan_.tokens[size_t(unit.first)].pages,
                                 own.tiles);
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

template <class Element, class Stored>
void Model<Element, Stored>::attend_short(int layer, int head, const ShortUnit& unit, Member me) {
  Scratch& own = scratch_[size_t(me.index)];
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
  Loader<Element, Stored> loader(kv, layer, head, longest->pages, own.tiles);
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

template <class Element, class Stored>
void Model<Element, Stored>::merge_short(int token, float* merged) {
  const int dim = shape.head_dim, heads = shape.heads;
  const int splits = Plan::num_splits(plan_.tokens[size_t(token)]);
  for (int head = 0; head < heads; ++head) {
    float top = MASKED, sum = 0;
    std::memset(merged, 0, size_t(dim) * sizeof(float));
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

template <class Element, class Stored>
void Model<Element, Stored>::project_head(const StepArgs& args, Member me) {
  Scratch& own = scratch_[size_t(me.index)];
  const Matrix& w = head_matrix();
  const int count = args.num_rows, strips = w.tiles() / 2;
  const Rows& rows = normalize(selected_.data(), norm.data(), w.format, count, work_.head_input,
                               me);
  product(w, rows, count, work_.head, me,
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
  if (me.index != 0) return;
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
