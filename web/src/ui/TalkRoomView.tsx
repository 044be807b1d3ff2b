/** A talk room with its sound, for whatever page shows it. */

import { startTalkHooks } from "../state/talk-hooks";
import { TalkRoom } from "../state/talk";
import { Talk, useRoom } from "./Talk";

export interface RoomViewProps {
  /** Hears of the room once it is there. */
  readonly onRoom?: (room: TalkRoom) => void;
}

export function TalkRoomView({ onRoom }: RoomViewProps) {
  const { room, audio } = useRoom((element) => {
    const made = new TalkRoom(element);
    startTalkHooks(made);
    onRoom?.(made);
    return made;
  });
  return (
    <>
      {room !== null && <Talk room={room} />}
      <audio ref={audio} data-voice-out autoplay hidden />
    </>
  );
}
