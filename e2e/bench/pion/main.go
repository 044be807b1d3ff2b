// A WHEP server on Pion, to compare with: one RTP stream in by UDP, one track to all viewers.
//
// It does what Pion's own examples do: default codecs, default interceptors (NACK, reports). Prints its
// ports as one line of JSON.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc"
)

type server struct {
	api      *webrtc.API
	track    *webrtc.TrackLocalStaticRTP
	mutex    sync.Mutex
	next     int
	sessions map[string]*webrtc.PeerConnection
}

func main() {
	media := &webrtc.MediaEngine{}
	check(media.RegisterDefaultCodecs())
	registry := &interceptor.Registry{}
	check(webrtc.RegisterDefaultInterceptors(media, registry))
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	api := webrtc.NewAPI(
		webrtc.WithMediaEngine(media),
		webrtc.WithInterceptorRegistry(registry),
		webrtc.WithSettingEngine(settings),
	)
	capability := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264}
	track, err := webrtc.NewTrackLocalStaticRTP(capability, "video", "bench")
	check(err)
	s := &server{api: api, track: track, sessions: map[string]*webrtc.PeerConnection{}}

	rtp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(err)
	check(rtp.SetReadBuffer(4 << 20))
	go s.forward(rtp)
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	check(err)
	http.HandleFunc("/whep", s.offer)
	http.HandleFunc("/session/", s.end)
	check(json.NewEncoder(os.Stdout).Encode(map[string]int{
		"http": listener.Addr().(*net.TCPAddr).Port,
		"rtp":  rtp.LocalAddr().(*net.UDPAddr).Port,
	}))
	check(http.Serve(listener, nil))
}

// forward hands each packet to all viewers.
func (s *server) forward(rtp *net.UDPConn) {
	packet := make([]byte, 2048)
	for {
		length, err := rtp.Read(packet)
		check(err)
		// A viewer that is gone is no reason to stop.
		_, _ = s.track.Write(packet[:length])
	}
}

func (s *server) offer(w http.ResponseWriter, r *http.Request) {
	offer, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	peer, err := s.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if err = s.answer(peer, string(offer)); err != nil {
		_ = peer.Close()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mutex.Lock()
	s.next++
	name := fmt.Sprint(s.next)
	s.sessions[name] = peer
	s.mutex.Unlock()
	w.Header().Set("Content-Type", "application/sdp")
	w.Header().Set("Location", "/session/"+name)
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, peer.LocalDescription().SDP)
}

func (s *server) answer(peer *webrtc.PeerConnection, offer string) error {
	sender, err := peer.AddTrack(s.track)
	if err != nil {
		return err
	}
	// Feedback is acted on by the interceptors as it is read.
	go func() {
		feedback := make([]byte, 1500)
		for {
			if _, _, err := sender.Read(feedback); err != nil {
				return
			}
		}
	}()
	description := webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}
	if err = peer.SetRemoteDescription(description); err != nil {
		return err
	}
	answer, err := peer.CreateAnswer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(peer)
	if err = peer.SetLocalDescription(answer); err != nil {
		return err
	}
	<-gathered
	return nil
}

func (s *server) end(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[len("/session/"):]
	s.mutex.Lock()
	peer := s.sessions[name]
	delete(s.sessions, name)
	s.mutex.Unlock()
	if peer == nil {
		http.NotFound(w, r)
		return
	}
	_ = peer.Close()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
