"""How torch computes a step, on a GPU or on a CPU without native code: batch in, result out."""
