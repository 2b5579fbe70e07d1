// Collections while they are read: `collection.py`, in C++. What has come is a list of numbers:
// phase, count, last, words of seen bits, counters.
#pragma once

#include <algorithm>
#include <vector>

#include "program.h"

namespace sapwood {

enum Phase : int { BEGIN, AFTER_MEMBER, AFTER_COMMA };

class CollectionRules {
 public:
  CollectionRules(const Program& program, int number, const std::vector<int>& need) {
    const CollectionOf& of = program.collections[number];
    ordered_ = of.ordered != 0;
    low_ = of.low;
    high_ = of.high;
    most_ = std::max(low_, std::max(high_, 0));
    comma_rule_ = of.comma;
    comma_ = need[program.rule_start[of.comma]];
    members_.assign(program.members.first(number), program.members.last(number));
    needs_.assign(program.needs.first(number), program.needs.last(number));
    counters_.assign(program.counters.first(number), program.counters.last(number));
    const int count = static_cast<int>(members_.size());
    for (const MemberOf& member : members_) cost_.push_back(need[program.rule_start[member.rule]]);
    tracked_.assign(count, false);
    for (int m = 0; m < count; ++m) tracked_[m] = !ordered_ && members_[m].once;
    for (const Pair& pair : needs_) tracked_[pair.first] = tracked_[pair.second] = true;
    for (int m = 0; m < count; ++m) by_cost_.push_back(m);
    std::stable_sort(by_cost_.begin(), by_cost_.end(), [&](int a, int b) { return cost_[a] < cost_[b]; });
    words_ = std::any_of(tracked_.begin(), tracked_.end(), [](bool t) { return t; }) ? (count + 31) / 32 : 0;
    for (int m = 0; m < count; ++m)
      if (members_[m].required) required_.push_back(m);
    // Nothing that may come can then bar what must, but by passing over members that count.
    is_free_ = needs_.empty() && counters_.empty() && high_ == NO_BOUND && (!ordered_ || low_ <= 1);
  }

  int comma_rule() const { return comma_rule_; }
  int rule(int member) const { return members_[member].rule; }
  int size() const { return static_cast<int>(members_.size()); }

  // What it takes to find the members that may come.
  size_t work() const { return members_.size() * (is_free_ ? 1 : 1 + members_.size()); }

  std::vector<int> begin() const {
    std::vector<int> progress(3 + words_ + counters_.size(), 0);
    progress[2] = -1;
    return progress;
  }

  bool may_come(const int* progress, int member) const {
    if (!is_open(progress, member) || passes_over(progress, member)) return false;
    return is_free_ || shortest(after(progress, member).data()) < NEVER;
  }

  bool may_end(const int* progress) const {
    if (progress[0] == AFTER_COMMA) return false;
    if (needs_.empty() && counters_.empty())
      return progress[1] >= low_ &&
             std::all_of(required_.begin(), required_.end(), [&](int member) { return has_come(progress, member); });
    Plan plan;
    return make_plan(progress, plan) && plan.empty();
  }

  std::vector<int> after(const int* progress, int member) const {
    std::vector<int> next(progress, progress + 3 + words_ + counters_.size());
    next[0] = AFTER_MEMBER;
    next[1] = std::min(next[1] + 1, most_);
    next[2] = ordered_ ? member : -1;
    if (tracked_[member]) next[3 + member / 32] |= static_cast<int>(1u << (member % 32));
    if (const int counter = members_[member].counter; counter >= 0) {
      int& raised = next[3 + words_ + counter];
      raised = std::min(raised + 1, std::max(counters_[counter].first, std::max(counters_[counter].second, 0)));
    }
    return next;
  }

  std::vector<int> after_comma(const int* progress) const {
    std::vector<int> next(progress, progress + 3 + words_ + counters_.size());
    next[0] = AFTER_COMMA;
    return next;
  }

  int shortest(const int* progress) const {
    if (needs_.empty() && counters_.empty()) return shortest_unplanned(progress);
    Plan plan;
    if (!make_plan(progress, plan)) return NEVER;
    if (plan.empty()) return 0;
    long total = static_cast<long>(plan.size() - (progress[0] != AFTER_MEMBER)) * comma_;
    for (int member : plan) total += cost_[member];
    return static_cast<int>(std::min<long>(total, NEVER));
  }

 private:
  using Plan = std::vector<int>;

  // `shortest` where no member depends on another: what is required, then the cheapest.
  int shortest_unplanned(const int* progress) const {
    long count = 0, total = 0;
    for (int member : required_) {
      if (has_come(progress, member)) continue;
      if (!is_open(progress, member)) return NEVER;
      ++count;
      total += cost_[member];
    }
    const long least = std::max(low_ - progress[1], progress[0] == AFTER_COMMA ? 1 : 0);
    for (int member : by_cost_) {
      if (count >= least) break;
      const bool is_planned = members_[member].required && !has_come(progress, member);
      if (is_planned || !is_open(progress, member)) continue;
      const long times = members_[member].once ? 1 : least - count;
      count += times;
      total += times * cost_[member];
    }
    if (count < least || (high_ != NO_BOUND && progress[1] + count > high_)) return NEVER;
    if (count) total += (count - (progress[0] != AFTER_MEMBER)) * comma_;
    return static_cast<int>(std::min<long>(total, NEVER));
  }

  bool has_bit(const int* progress, int member) const {
    return words_ && (static_cast<unsigned>(progress[3 + member / 32]) >> (member % 32) & 1);
  }
  int raised(const int* progress, int counter) const { return progress[3 + words_ + counter]; }
  static bool holds(const Plan& plan, int member) { return std::find(plan.begin(), plan.end(), member) != plan.end(); }

  bool is_open(const int* progress, int member) const {
    if (cost_[member] >= NEVER || progress[1] == high_) return false;
    const MemberOf& m = members_[member];
    if (m.counter >= 0 && raised(progress, m.counter) == counters_[m.counter].second) return false;
    if (!ordered_) return !(m.once && has_bit(progress, member));
    return m.once ? member > progress[2] : member >= progress[2];
  }

  bool passes_over(const int* progress, int member) const {
    if (!ordered_) return false;
    return std::any_of(required_.begin(), required_.end(), [&](int r) { return progress[2] < r && r < member; });
  }

  bool has_come(const int* progress, int member) const {
    return ordered_ && !tracked_[member] ? member <= progress[2] : has_bit(progress, member);
  }

  bool fills(const int* progress, const Plan& plan, int member) const {
    const MemberOf& m = members_[member];
    if (m.counter >= 0 && counters_[m.counter].second != NO_BOUND) {
      const long planned =
          std::count_if(plan.begin(), plan.end(), [&](int each) { return members_[each].counter == m.counter; });
      if (raised(progress, m.counter) + planned >= counters_[m.counter].second) return false;
    }
    return is_open(progress, member) && !(m.once && holds(plan, member));
  }

  bool add(const int* progress, Plan& plan, int member) const {
    if (!is_open(progress, member)) return false;
    plan.push_back(member);
    for (const Pair& need : needs_)
      if (need.first == member && !add_needed(progress, plan, need.second)) return false;
    return true;
  }

  bool add_needed(const int* progress, Plan& plan, int member) const {
    return holds(plan, member) || has_bit(progress, member) || add(progress, plan, member);
  }

  bool fill_one(const int* progress, Plan& plan) const {
    for (int member : by_cost_) {
      if (!fills(progress, plan, member)) continue;
      Plan longer = plan;
      if (add(progress, longer, member) && has_room(progress, longer)) {
        plan.swap(longer);
        return true;
      }
    }
    return false;
  }

  bool make_plan(const int* progress, Plan& plan) const {
    for (int member : required_)
      if (!has_come(progress, member) && !holds(plan, member) && !add(progress, plan, member)) return false;
    for (const Pair& need : needs_)
      if (has_bit(progress, need.first) && !add_needed(progress, plan, need.second)) return false;
    for (int counter = 0; counter < static_cast<int>(counters_.size()); ++counter) {
      const int lacking = counters_[counter].first - raised(progress, counter);
      if (lacking <= 0) continue;
      const auto raises = std::find_if(by_cost_.begin(), by_cost_.end(), [&](int m) {
        return members_[m].counter == counter && is_open(progress, m);
      });
      if (raises == by_cost_.end()) return false;
      plan.insert(plan.end(), lacking, *raises);
    }
    const int least = std::max(low_ - progress[1], progress[0] == AFTER_COMMA ? 1 : 0);
    while (static_cast<int>(plan.size()) < least)
      if (!fill_one(progress, plan)) return false;
    return has_room(progress, plan);
  }

  bool has_room(const int* progress, const Plan& plan) const {
    return high_ == NO_BOUND || progress[1] + static_cast<int>(plan.size()) <= high_;
  }

  bool ordered_, is_free_;
  int low_, high_, most_, comma_rule_, comma_, words_;
  std::vector<MemberOf> members_;
  std::vector<Pair> needs_, counters_;
  std::vector<int> cost_, by_cost_, required_;
  std::vector<bool> tracked_;
};

}  // namespace sapwood
