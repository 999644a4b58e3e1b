#include "session/earlier_sessions.h"

namespace holdfast {

EarlierSessions& earlier_sessions() {
  static EarlierSessions sessions;
  return sessions;
}

}  // namespace holdfast
